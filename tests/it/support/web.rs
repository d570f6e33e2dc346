//! The API, as somebody who is signed in uses it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::events::Events;

/// Somebody with a token.
#[derive(Clone)]
pub struct Web {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Web {
    /// Signs in and makes a token for what follows.
    pub async fn sign_in(port: u16, username: &str, password: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let base = format!("http://127.0.0.1:{port}");
        let login = json!({"username": username, "password": password});
        let answer = http.post(format!("{base}/api/auth/login")).json(&login).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "login of {username}");
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let answer = http
            .post(format!("{base}/api/auth/tokens"))
            .header("cookie", cookie)
            .json(&json!({"name": "tests"}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED, "token of {username}");
        let answer: Value = answer.json().await.unwrap();
        let token = answer["token"].as_str().unwrap().to_owned();
        Self { http, base, token }
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, None).await
    }

    /// Follows live calls, after the event of this id.
    pub async fn follow(&self, path: &str, last_event_id: &str) -> Events {
        let request = self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        Events::open(request.header("last-event-id", last_event_id)).await
    }

    /// An answer that is read as it comes.
    pub async fn open(&self, path: &str) -> reqwest::Response {
        let request = self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// None where it isn't done.
    pub async fn try_post(&self, path: &str, body: Value) -> Option<Value> {
        let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.token);
        let answer = request.json(&body).send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        answer.json().await.ok()
    }

    /// What it is refused with: the status, and the problem.
    pub async fn refused(&self, path: &str, body: Value) -> (u16, Value) {
        let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.token);
        let answer = request.json(&body).send().await.unwrap();
        let kind =
            answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let status = answer.status().as_u16();
        assert_eq!(kind.as_deref(), Some("application/problem+json"), "{path}: {status}");
        (status, answer.json().await.unwrap())
    }

    pub async fn put(&self, path: &str, body: Value) -> Value {
        self.ask(Method::PUT, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Value {
        self.ask(Method::DELETE, path, None).await
    }

    /// Whether it can be read now.
    pub async fn is_readable(&self, path: &str) -> bool {
        let request = self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        request.send().await.is_ok_and(|answer| answer.status().is_success())
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}{path}", self.base);
        let mut request = self.http.request(method.clone(), url).bearer_auth(&self.token);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{method} {path} {body:?}: {status} {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }
}
