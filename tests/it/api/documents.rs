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
        let lines = |indent: &str, names: &[&str]| {
            let is_one = |line: &str| {
                let rest = line.strip_prefix(indent).unwrap_or_default();
                names.iter().any(|name| rest.starts_with(name))
            };
            document.lines().filter(|line| is_one(line)).count()
        };
        let operations = lines("    ", &["get:", "post:", "put:", "delete:"]);
        assert!(operations > 10);
        for part in ["operationId:", "summary:", "tags:", "responses:"] {
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
