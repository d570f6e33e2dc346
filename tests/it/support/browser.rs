//! A real browser without a window, told line by line what to do (`tests/console/drive.mjs`).

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::service::{Service, path_with_node, tools};
use super::wait::seconds;

/// It is gone with this.
pub struct Browser {
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

/// Where pictures are kept, for whoever wants to look.
fn pictures() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("console-screenshots")
}

impl Browser {
    pub async fn start(service: &Service) -> Self {
        Self::start_at(service, service.http_port).await
    }

    /// The same, with a network between it and the service that listens at this port.
    pub async fn start_at(service: &Service, port: u16) -> Self {
        std::fs::create_dir_all(pictures()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console/drive.mjs");
        let mut process = Command::new("node")
            .env("PATH", path_with_node())
            .arg(script)
            .arg(tools())
            .arg(format!("http://127.0.0.1:{port}"))
            .arg(pictures())
            // What it keeps for itself goes when the service's folder does.
            .env("HOME", service.file(""))
            .env("TMPDIR", service.file(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Node.js: run scripts/fetch-api-tools");
        let orders = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut browser = Self { orders, answers, _process: process };
        browser.answer("its start").await;
        browser
    }

    pub async fn open(&mut self, path: &str) {
        self.tell(json!(["open", path])).await;
    }

    /// Opens the console and signs in.
    pub async fn sign_in(&mut self, username: &str, password: &str) {
        self.open("/console").await;
        self.fill("role=textbox[name='Username']", username).await;
        self.fill("input[type=password]", password).await;
        self.click("role=button[name='Sign in']").await;
    }

    pub async fn click(&mut self, selector: &str) {
        self.tell(json!(["click", selector])).await;
    }

    pub async fn fill(&mut self, selector: &str, text: &str) {
        self.tell(json!(["fill", selector, text])).await;
    }

    pub async fn press(&mut self, key: &str) {
        self.tell(json!(["press", key])).await;
    }

    /// Waits until something like this is shown.
    pub async fn see(&mut self, selector: &str) {
        self.tell(json!(["see", selector])).await;
    }

    /// Waits until nothing like this is shown.
    pub async fn miss(&mut self, selector: &str) {
        self.tell(json!(["miss", selector])).await;
    }

    pub async fn text(&mut self, selector: &str) -> String {
        self.tell(json!(["text", selector])).await.as_str().unwrap().to_owned()
    }

    pub async fn count(&mut self, selector: &str) -> u64 {
        self.tell(json!(["count", selector])).await.as_u64().unwrap()
    }

    /// The text of what has the focus.
    pub async fn focused(&mut self) -> String {
        self.tell(json!(["focused"])).await.as_str().unwrap().to_owned()
    }

    pub async fn size(&mut self, width: u32, height: u32) {
        self.tell(json!(["size", width, height])).await;
    }

    /// `dark` or `light`, as the system would say.
    pub async fn scheme(&mut self, scheme: &str) {
        self.tell(json!(["scheme", scheme])).await;
    }

    /// Keeps a picture of the screen.
    pub async fn picture(&mut self, name: &str) {
        self.tell(json!(["picture", name])).await;
    }

    /// By how many pixels the page is wider than the screen.
    pub async fn overflow(&mut self) -> i64 {
        self.tell(json!(["overflow"])).await.as_i64().unwrap()
    }

    /// Nothing that somebody couldn't use, as far as a program can tell.
    pub async fn assert_accessible(&mut self) {
        assert_eq!(self.tell(json!(["inaccessible"])).await, json!([]));
    }

    /// No error in the page, nothing against its policy, nothing asked from outside.
    pub async fn assert_no_complaints(&mut self) {
        assert_eq!(self.tell(json!(["complaints"])).await, json!([]));
    }

    async fn tell(&mut self, order: Value) -> Value {
        let line = format!("{order}\n");
        self.orders.write_all(line.as_bytes()).await.expect("the browser takes orders");
        self.answer(&line).await
    }

    async fn answer(&mut self, order: &str) -> Value {
        let line = timeout(seconds(60), self.answers.next_line()).await.expect("an answer in time");
        let line = line.unwrap().unwrap_or_else(|| panic!("the browser ended at {order}"));
        let mut answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer.get("error").is_none(), "{}", answer["error"].as_str().unwrap());
        answer["ok"].take()
    }
}
