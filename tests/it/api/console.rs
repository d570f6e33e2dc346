//! The console's files, and the program that was built without them.

use capconduit::api::console::{File, pages};
use poem::Route;
use poem::http::StatusCode;
use poem::test::{TestClient, TestResponse};
use reqwest::header::CONTENT_SECURITY_POLICY;

use crate::support::api::TestApi;

const BUILT: &[File] =
    &[("assets/index-4f2a.js", b"let console;"), ("index.html", b"<!doctype html>")];

async fn get(files: &'static [File], path: &str) -> TestResponse {
    let routes = Route::new().nest("/console", poem::get(pages(files)));
    TestClient::new(routes).get(path).send().await
}

#[tokio::test]
async fn a_built_console_is_served_under_a_policy_that_lets_nothing_else_in() {
    for path in ["/console", "/console/"] {
        let page = get(BUILT, path).await;
        page.assert_status_is_ok();
        page.assert_content_type("text/html; charset=utf-8");
        page.assert_header("cache-control", "no-cache");
        page.assert_text("<!doctype html>").await;
    }
    let script = get(BUILT, "/console/assets/index-4f2a.js").await;
    script.assert_content_type("text/javascript; charset=utf-8");
    script.assert_header("cache-control", "public, max-age=31536000, immutable");
    let absent = get(BUILT, "/console/assets/other.js").await;
    absent.assert_status(StatusCode::NOT_FOUND);

    // As it is served, whether or not this very program has a console.
    let api = TestApi::start().await;
    let page = reqwest::get(format!("{}/console", api.base)).await.unwrap();
    let headers = page.headers();
    let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
    let mut parts: Vec<_> = policy.split(';').map(str::trim).collect();
    parts.sort_unstable();
    assert_eq!(
        parts,
        [
            "base-uri 'none'",
            "connect-src 'self'",
            "default-src 'none'",
            "font-src 'self'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "img-src 'self'",
            "script-src 'self'",
            "style-src 'self'",
        ]
    );
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["x-frame-options"], "DENY");
}

#[tokio::test]
async fn a_program_without_its_console_says_what_to_do() {
    for path in ["/console", "/console/", "/console/assets/index-4f2a.js"] {
        let page = get(&[], path).await;
        page.assert_status(StatusCode::NOT_IMPLEMENTED);
        let text = page.0.into_body().into_string().await.unwrap();
        assert!(text.contains("make console") && text.contains("Node.js"), "{text}");
    }
}
