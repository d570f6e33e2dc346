//! Someone signed in to the HTTP API, as any other program would be.

use std::time::Duration;

use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::{Method, RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answers::Page;

/// A signed-in user.
pub struct Session {
    http: reqwest::Client,
    /// `http://127.0.0.1:8080`
    address: String,
    /// `name=value`
    cookie: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("the service at {address} can't be asked: did it end? ({source})")]
    Unreachable { address: String, source: reqwest::Error },
    #[error("{method} {path} was refused with {status}: {detail}")]
    Refused { method: Method, path: String, status: u16, detail: String },
    #[error("the answer to {method} {path} can't be understood: {source}")]
    Unreadable { method: Method, path: String, source: reqwest::Error },
    #[error("signing in set no session cookie")]
    NoCookie,
}

/// RFC 9457.
#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Value,
}

const TIMEOUT: Duration = Duration::from_secs(5);

// === impl Session ===

impl Session {
    /// Signs in with a password.
    ///
    /// # Errors
    /// `Refused` with status 401 when name or password is wrong.
    pub async fn sign_in(address: &str, user: &str, password: &str) -> Result<Self, ApiError> {
        let unreachable = |source| ApiError::Unreachable { address: address.to_owned(), source };
        let http = client().map_err(unreachable)?;
        let mut session = Self { http, address: address.to_owned(), cookie: String::new() };
        let login = json!({ "username": user, "password": password });
        let answer = session.ask(Method::POST, "/api/auth/login", Some(&login)).await?;
        let cookie = answer.headers().get(SET_COOKIE).and_then(|value| value.to_str().ok());
        let pair = cookie.and_then(|cookie| cookie.split(';').next());
        pair.ok_or(ApiError::NoCookie)?.clone_into(&mut session.cookie);
        Ok(session)
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends the session. That the service may be gone by now is nobody's trouble.
    pub async fn sign_out(&self) {
        let _ = self.ask(Method::POST, "/api/auth/logout", None).await;
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.read(Method::GET, path, None).await
    }

    pub async fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, ApiError> {
        self.read(Method::POST, path, Some(body)).await
    }

    pub async fn change(&self, path: &str, body: &Value) -> Result<(), ApiError> {
        self.ask(Method::PUT, path, Some(body)).await.map(drop)
    }

    pub async fn delete(&self, path: &str) -> Result<(), ApiError> {
        self.ask(Method::DELETE, path, None).await.map(drop)
    }

    /// All entries of a list, page by page.
    pub async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ApiError> {
        let mut items = Vec::new();
        for number in 1.. {
            let page: Page<T> = self.get(&format!("{path}?page={number}&per_page=200")).await?;
            items.extend(page.items);
            if number >= page.pages {
                break;
            }
        }
        Ok(items)
    }

    async fn read<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ApiError> {
        let answer = self.ask(method.clone(), path, body).await?;
        let path = path.to_owned();
        answer.json().await.map_err(|source| ApiError::Unreadable { method, path, source })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, ApiError> {
        let request = self.http.request(method.clone(), format!("{}{path}", self.address));
        let sent = with(body, request).header(COOKIE, &self.cookie).send().await;
        let address = self.address.clone();
        let answer = sent.map_err(|source| ApiError::Unreachable { address, source })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let problem: Problem = answer.json().await.unwrap_or_default();
        let errors = if problem.errors.is_null() { Value::default() } else { problem.errors };
        let detail = match errors {
            Value::Null => problem.detail,
            errors => format!("{} {errors}", problem.detail),
        };
        Err(ApiError::Refused { method, path: path.to_owned(), status: status.as_u16(), detail })
    }
}

fn with(body: Option<&Value>, request: RequestBuilder) -> RequestBuilder {
    match body {
        Some(body) => request.json(body),
        None => request,
    }
}

/// An HTTP client for this machine: whatever proxy is set is for elsewhere.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()
}
