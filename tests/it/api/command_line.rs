//! Accounts from the command line, and what the audit log has of it.

use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use capconduit_entity::audit_entry;
use sea_orm::EntityTrait;

/// A database that commands work on.
struct Place {
    folder: TempDir,
}

impl Place {
    fn url(&self) -> String {
        format!("sqlite://{}", self.folder.path().join("test.db").display())
    }

    fn user(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_capconduit"));
        command.arg("user").args(words).env("CAPCONDUIT__DATABASE__URL", self.url());
        command.output().unwrap()
    }

    async fn audit(&self) -> Vec<audit_entry::Model> {
        let db = capconduit::db::connect(&self.url()).await.unwrap();
        audit_entry::Entity::find().all(&db).await.unwrap()
    }
}

#[tokio::test]
async fn accounts_made_and_rescued_on_the_command_line_are_in_the_audit_log() {
    let place = Place { folder: tempfile::tempdir().unwrap() };
    let create = ["create", "annie", "--email", "annie@example.org", "--role", "staff"];
    let created = place.user(&create);
    assert!(created.status.success(), "{created:?}");
    let said = String::from_utf8(created.stdout).unwrap();
    let password = said.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(place.user(&["reset-password", "annie"]).status.success());
    // What fails leaves nothing, and what only looks neither.
    assert!(!place.user(&create).status.success(), "the name is taken");
    assert!(!place.user(&["reset-password", "nobody"]).status.success());
    assert!(place.user(&["list"]).status.success());

    let entries = place.audit().await;
    let commands: Vec<_> = entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(commands, ["capconduit user create", "capconduit user reset-password"]);
    for entry in &entries {
        assert_eq!((entry.method.as_str(), entry.resource.as_str()), ("COMMAND", "user"));
        assert_eq!((entry.user_id, &entry.username, &entry.address), (None, &None, &None));
        assert_eq!(entry.resource_id, "1");
        assert_eq!(entry.before, None);
    }
    let after = entries[0].after.as_ref().unwrap();
    assert_eq!((&after["username"], &after["role"]), (&json!("annie"), &json!("staff")));
    assert_eq!(entries[1].after, Some(json!({"passwordChanged": true})));
    let noted = entries.iter().map(|entry| format!("{:?} {:?}", entry.after, entry.path));
    let noted: String = noted.collect();
    assert!(!noted.contains(&password) && !noted.contains("argon2"), "{noted}");
    assert!(after.get("passwordHash").unwrap_or(&Value::Null).is_null());
}
