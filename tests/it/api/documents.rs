use capconduit::api::{admin_document, seller_document};

use crate::support::api::TestApi;

/// Compares a checked-in document with the generated one.
#[track_caller]
fn is_current(name: &str, generated: &str) {
    let path = format!("{}/openapi/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, generated).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(checked_in == generated, "openapi/{name}.yaml isn't current: run `make openapi`");
}

#[test]
fn the_documents_are_current() {
    is_current("admin", &admin_document());
    is_current("seller", &seller_document());
}

/// Operations that anyone may call: health, readiness, signing in.
const OPEN: usize = 3;

#[test]
fn every_operation_has_a_name_a_summary_a_tag_its_errors_and_its_security() {
    for document in [admin_document(), seller_document()] {
        let (paths, _) = document.split_once("\ncomponents:\n").unwrap();
        let lines = |indent: &str, names: &[&str]| {
            let is_one = |line: &str| {
                let rest = line.strip_prefix(indent).unwrap_or_default();
                names.iter().any(|name| rest.starts_with(name))
            };
            paths.lines().filter(|line| is_one(line)).count()
        };
        let operations = lines("    ", &["get:", "post:", "put:", "delete:"]);
        assert!(operations > 10);
        for part in ["operationId:", "summary:", "description:", "tags:", "responses:"] {
            assert_eq!(lines("      ", &[part]), operations, "{part}");
        }
        assert_eq!(lines("      ", &["security:"]), operations - OPEN);
        // All but `/health` can be refused.
        assert_eq!(lines("        ", &["'503':"]), operations - 1);
        assert_eq!(lines("        ", &["'401':"]), operations - 2);
        // The dialplan's token either lets in or it doesn't.
        let internal = lines("  ", &["/api/internal/"]);
        assert_eq!(lines("        ", &["'403':"]), operations - 2 - internal);
    }
}

#[tokio::test]
async fn swagger_ui_needs_nothing_from_elsewhere() {
    let api = TestApi::start().await;
    for path in ["/docs/admin", "/docs/seller"] {
        let page = api.nobody().get(path).await;
        assert_eq!(page.status, 200);
        assert!(page.text.contains("swagger-ui"));
        assert!(!page.text.contains("<script src=\"http"));
    }
}

#[test]
fn every_body_has_an_example() {
    for document in [admin_document(), seller_document()] {
        let mut bodies = 0;
        for (_, body) in
            document.match_indices("      requestBody:").map(|(at, _)| document.split_at(at))
        {
            let (_, rest) = body.split_once("#/components/schemas/").unwrap();
            let name = rest.split(['\'', '\n']).next().unwrap();
            let (_, schema) = document.split_once(&format!("\n    {name}:\n")).unwrap();
            let is_inside = |line: &&str| line.is_empty() || line.starts_with("     ");
            let has_example =
                schema.lines().take_while(is_inside).any(|line| line.starts_with("      example:"));
            assert!(has_example, "{name}");
            bodies += 1;
        }
        assert!(bodies > 5);
    }
}

#[tokio::test]
async fn a_refused_method_is_told_which_methods_there_are() {
    let api = TestApi::start().await;
    for (path, methods) in [
        ("/api/seller/dids", "GET, POST"),
        ("/api/seller/campaigns/available_clients", "GET"),
        ("/api/seller/campaigns/7", "GET, PUT, DELETE"),
        ("/api/seller/campaigns/7/clients/9", "PUT, DELETE"),
    ] {
        let request = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = request.patch(format!("{}{path}", api.base)).send().await.unwrap();
        assert_eq!(answer.status(), 405, "{path}");
        assert_eq!(answer.headers()["allow"], methods, "{path}");
    }
}

#[test]
fn the_documents_say_that_requests_have_no_other_fields() {
    for (document, schema) in [(admin_document(), "NewClient"), (seller_document(), "DidChange")] {
        let document: serde_json::Value = serde_yaml::from_str(&document).unwrap();
        let schema = &document["components"]["schemas"][schema];
        assert_eq!(schema["additionalProperties"], false, "{schema}");
    }
}
