//! Clients generated from both documents compile, and take a campaign from its
//! DID to its first call log. Each walk is in `tests/clients`; what is
//! generated for it is thrown away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::callers::call;
use crate::support::clients::{Manner, Phones};
use crate::support::service::{Service, path_with_node, tools};
use crate::support::wait::seconds;

const NUMBER: &str = "+442071838750";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document(side: &str) -> PathBuf {
    root().join("openapi").join(side).with_extension("yaml")
}

/// A folder with copies of these files of `tests/clients`.
fn workshop(files: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        fs::copy(root().join("tests/clients").join(file), folder.path().join(file)).unwrap();
    }
    folder
}

/// A program that runs in `folder`.
fn program(path: &Path, folder: &TempDir) -> Command {
    let mut command = Command::new(path);
    command
        .env("PATH", path_with_node())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn succeed(mut command: Command) {
    let ran = timeout(seconds(120), command.output()).await.expect("an end within time");
    let ran = ran.unwrap_or_else(|error| panic!("{error}: run scripts/fetch-api-tools"));
    let [said, complained] = [&ran.stdout, &ran.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(ran.status.success(), "{command:?}\n{said}\n{complained}");
}

/// Lets it walk, and calls when it says so.
async fn walk(mut command: Command) {
    let service = Service::start().await;
    let phones = Phones::start(&service, Manner::answers_after(50)).await;
    let mut walker = command
        .env("CAPCONDUIT_URL", format!("http://127.0.0.1:{}", service.http_port))
        .env("CAPCONDUIT_PASSWORD", service.secret("admin-password"))
        .env("CAPCONDUIT_CONTACT", phones.contact())
        .env("CAPCONDUIT_NUMBER", NUMBER)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(walker.stdout.take().unwrap()).lines();
    let walked = async {
        assert_eq!(lines.next_line().await.unwrap(), Some(format!("CALL {NUMBER}")));
        call(NUMBER, 100).start(&service).finish(seconds(20)).await;
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("DONE"));
        assert!(walker.wait().await.unwrap().success());
    };
    timeout(seconds(60), walked).await.expect("an end within time");
}

#[tokio::test]
async fn a_typescript_client_walks_from_a_did_to_the_first_log() {
    let folder = workshop(&["package.json", "tsconfig.json", "walk.ts"]);
    let modules = tools().join("node/node_modules");
    std::os::unix::fs::symlink(&modules, folder.path().join("node_modules")).unwrap();
    for side in ["admin", "seller"] {
        let mut generator = program(&modules.join(".bin/openapi-typescript"), &folder);
        generator.arg(document(side)).args(["--output", &format!("{side}.d.ts")]);
        succeed(generator).await;
    }
    succeed(program(&modules.join(".bin/tsc"), &folder)).await;
    let mut node = program(Path::new("node"), &folder);
    node.arg("out/walk.js");
    walk(node).await;
}

#[tokio::test]
async fn a_python_client_walks_from_a_did_to_the_first_log() {
    let folder = workshop(&["walk.py"]);
    let python = tools().join("python/bin");
    for side in ["admin", "seller"] {
        let settings = format!("package_name_override: capconduit_{side}\npost_hooks: []\n");
        fs::write(folder.path().join(side).with_extension("yaml"), settings).unwrap();
        let mut generator = program(&python.join("openapi-python-client"), &folder);
        generator
            .args(["generate", "--fail-on-warning", "--meta", "none"])
            .args(["--config", &format!("{side}.yaml")])
            .args(["--output-path", &format!("capconduit_{side}"), "--path"])
            .arg(document(side));
        succeed(generator).await;
    }
    let mut types = program(&python.join("mypy"), &folder);
    types.args(["--no-error-summary", "--cache-dir=.mypy_cache", "walk.py"]);
    succeed(types).await;
    let mut walker = program(&python.join("python"), &folder);
    walker.arg("walk.py");
    walk(walker).await;
}
