//! Answers that say what went wrong: RFC 9457, `application/problem+json`.
//!
//! Handlers refuse with named constructors that read like English, and `?`
//! turns a [`Problem`] into the error type of the operation. What the cause
//! was inside (SQL, I/O) is logged here, once, and never leaves the process.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use poem::http::{StatusCode, header};
use poem::{Error, IntoResponse, Response};
use poem_openapi::error::{ParseParamError, ParsePathError};
use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::{ToJSON, Type};
use poem_openapi::{ApiResponse, Object};
use sea_orm::DbErr;
use tracing::error;

use super::tries::Blocked;
use crate::capacity::Unavailable;
use crate::db::is_away;

/// What went wrong, and with which fields.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    /// Its name and title, where the status alone doesn't say which kind it is.
    kind: Option<(&'static str, &'static str)>,
    detail: String,
    errors: FieldErrors,
    /// Seconds after which a next try makes sense.
    retry_after: Option<u64>,
}

/// Complaints about fields, by their JSON names.
#[derive(Clone, Debug, Default)]
pub struct FieldErrors(BTreeMap<String, Vec<String>>);

/// An error, as every operation sends it.
#[derive(Object)]
#[oai(rename = "Problem", skip_serializing_if_is_none)]
struct ProblemBody {
    /// A stable name of this kind of error.
    #[oai(rename = "type")]
    kind: String,
    /// The kind of error in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What went wrong this time.
    detail: String,
    /// Every bad field by its JSON name, with what is wrong with it.
    errors: Option<BTreeMap<String, Vec<String>>>,
}

/// Which errors an operation may answer with: becomes part of its documentation.
pub trait Kinds: Send + Sync + 'static {
    const STATUSES: &'static [u16];
}

/// A [`Problem`] as the error of an operation that documents the statuses of `K`.
#[derive(Debug)]
pub struct Refusal<K>(Problem, PhantomData<K>);

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident = [$($status:literal),+];)+) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $name;

        impl Kinds for $name {
            const STATUSES: &'static [u16] = &[$($status),+];
        }
    )+};
}

kinds! {
    /// Anyone may ask; a dependency may be away.
    Open = [503];
    /// Signing in.
    SigningIn = [400, 401, 403, 413, 415, 429, 500, 503];
    /// Changing one's own password, which proves who one is again.
    NewSecret = [400, 401, 403, 413, 415, 429, 500, 503];
    /// Reading one's own account.
    Own = [401, 403, 500, 503];
    /// Asking a question that needs a body.
    Ask = [400, 401, 403, 404, 413, 415, 500, 503];
    /// The dialplan looks something up.
    Lookup = [400, 401, 500, 503];
    /// Asking the service to look after itself.
    Check = [400, 401, 413, 415, 500, 503];
    /// The dialplan reports something.
    Report = [400, 401, 404, 409, 413, 415, 500, 503];
    /// Reading one thing.
    Read = [400, 401, 403, 404, 500, 503];
    /// Reading a list.
    List = [400, 401, 403, 500, 503];
    /// Following what happens.
    Follow = [400, 401, 403, 429, 500, 503];
    /// Creating a thing.
    Create = [400, 401, 403, 404, 409, 413, 415, 500, 503];
    /// Changing a thing.
    Change = [400, 401, 403, 404, 409, 413, 415, 500, 503];
    /// Deleting a thing.
    Remove = [400, 401, 403, 404, 409, 500, 503];
}

// === named constructors ===

pub fn bad_input(errors: FieldErrors) -> Problem {
    let fields: Vec<&str> = errors.0.keys().map(String::as_str).collect();
    let detail = match fields.as_slice() {
        [] => "The request isn't valid.".to_owned(),
        fields => format!("These fields aren't valid: {}.", fields.join(", ")),
    };
    Problem { errors, ..bad_request(detail) }
}

pub fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

pub fn bad_field(field: &str, message: impl Into<String>) -> Problem {
    let mut errors = FieldErrors::default();
    errors.add(field, message);
    bad_input(errors)
}

pub fn not_signed_in() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "Sign in first, or send a valid API token.")
}

pub fn wrong_credentials() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "Username or password is wrong, or the account isn't active.",
    )
}

pub fn wrong_token() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "X-Internal-API-Token is missing or wrong.")
}

pub fn forbidden(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, detail)
}

pub fn not_found(what: &str, id: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("There is no {what} {id}."))
}

pub fn conflict(field: &str, message: impl Into<String>) -> Problem {
    let message = message.into();
    let mut errors = FieldErrors::default();
    errors.add(field, message.clone());
    Problem { errors, ..in_use(format!("{field}: {message}")) }
}

pub fn in_use(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, detail)
}

pub fn too_large(limit_bytes: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("A body may have at most {} KiB.", limit_bytes / 1024),
    )
}

pub fn not_json() -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Send the body as application/json.")
}

pub fn too_many_tries(blocked: Blocked) -> Problem {
    let detail = format!("Too many tries failed: try again in {} seconds.", blocked.seconds);
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail);
    Problem { retry_after: Some(blocked.seconds), ..problem }
}

pub fn too_many_streams(limit: usize, retry_after: u64) -> Problem {
    let detail = format!("You have {limit} streams open: close one first.");
    Problem {
        kind: Some(("too-many-streams", "Too many streams")),
        retry_after: Some(retry_after),
        ..Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
    }
}

pub fn busy(detail: &str, retry_after: u64) -> Problem {
    Problem {
        kind: Some(("busy", "Busy")),
        retry_after: Some(retry_after),
        ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

pub fn away(what: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{what} can't be reached at the moment."))
}

pub fn broken() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong here.")
}

// === impl Problem ===

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let (detail, errors) = (detail.into(), FieldErrors::default());
        Self { status, kind: None, detail, errors, retry_after: None }
    }

    fn body(self) -> ProblemBody {
        let (kind, title) = self.kind.unwrap_or_else(|| match self.status.as_u16() {
            400 => ("bad-input", "Bad input"),
            401 => ("not-signed-in", "Not signed in"),
            403 => ("not-allowed", "Not allowed"),
            404 => ("not-found", "Not found"),
            405 => ("method-not-allowed", "Method not allowed"),
            409 => ("conflict", "Conflict"),
            413 => ("too-large", "Body too large"),
            415 => ("not-json", "Unsupported media type"),
            429 => ("too-many-tries", "Too many tries"),
            503 => ("unavailable", "A dependency is away"),
            _ => ("internal", "Internal error"),
        });
        ProblemBody {
            kind: format!("urn:capconduit:problem:{kind}"),
            title: title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            errors: (!self.errors.is_empty()).then_some(self.errors.0),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let mut response = Response::builder()
            .status(status)
            .content_type("application/problem+json")
            .body(self.body().to_json_string());
        if status == StatusCode::UNAUTHORIZED {
            let challenge = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::from_response(problem.into_response())
    }
}

impl From<DbErr> for Problem {
    fn from(err: DbErr) -> Self {
        match super::conflict::of(&err) {
            Some(problem) => problem,
            None if is_away(&err) => {
                error!(error = %err, "the database can't be reached");
                away("The database")
            }
            None => {
                error!(error = %err, "a query failed");
                broken()
            }
        }
    }
}

impl From<Unavailable> for Problem {
    fn from(err: Unavailable) -> Self {
        error!(error = %err, "capacity in use can't be read");
        away("The capacity ledger")
    }
}

// === impl FieldErrors ===

impl std::fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.0.iter().flat_map(|(field, messages)| {
            messages.iter().map(move |message| format!("{field} {message}"))
        });
        f.write_str(&all.collect::<Vec<_>>().join("; "))
    }
}

impl FieldErrors {
    pub fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.entry(field.into()).or_default().push(message.into());
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses the request if there is any complaint.
    ///
    /// # Errors
    /// A 400 that names every field.
    pub fn into_result(self) -> Result<(), Problem> {
        if self.is_empty() { Ok(()) } else { Err(bad_input(self)) }
    }
}

// === impl Refusal ===

impl<K, E: Into<Problem>> From<E> for Refusal<K> {
    fn from(err: E) -> Self {
        Self(err.into(), PhantomData)
    }
}

impl<K> From<Refusal<K>> for Error {
    fn from(refusal: Refusal<K>) -> Self {
        refusal.0.into()
    }
}

impl<K: Kinds> ApiResponse for Refusal<K> {
    fn meta() -> MetaResponses {
        let answer = |status: &u16| MetaResponse {
            description: describe(*status),
            status: Some(*status),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: "application/problem+json",
                schema: MetaSchemaRef::Reference(ProblemBody::name().into_owned()),
            }],
            headers: match status {
                429 => vec![retry_after(true)],
                503 => vec![retry_after(false)],
                _ => Vec::new(),
            },
        };
        MetaResponses { responses: K::STATUSES.iter().map(answer).collect() }
    }

    fn register(registry: &mut Registry) {
        ProblemBody::register(registry);
    }
}

fn retry_after(is_always_there: bool) -> MetaHeader {
    MetaHeader {
        name: "Retry-After".to_owned(),
        description: Some("Seconds after which to ask again.".to_owned()),
        required: is_always_there,
        deprecated: false,
        schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("integer"))),
    }
}

fn describe(status: u16) -> &'static str {
    match status {
        400 => "Bad input: every bad field is named.",
        401 => "Not signed in.",
        403 => "Not allowed.",
        404 => "Not there, or not yours.",
        409 => "Conflict with what is there.",
        413 => "The body is too large.",
        415 => "The body isn't JSON.",
        429 => "Too many: tries that failed, or open streams.",
        503 => "A dependency is away, or too much is under way.",
        _ => "Something went wrong here.",
    }
}

/// Gives errors that the framework raised the shape that all others have.
pub async fn from_framework(err: Error) -> Response {
    if err.is_from_response() {
        return err.into_response();
    }
    if let Some(param) = err.downcast_ref::<ParseParamError>() {
        return bad_field(param.name, param.reason.clone()).into_response();
    }
    if err.downcast_ref::<ParsePathError>().is_some() {
        return bad_field("id", "must be a whole number").into_response();
    }
    let status = err.status();
    let detail = match status {
        StatusCode::NOT_FOUND => "There is nothing at this path.".to_owned(),
        StatusCode::METHOD_NOT_ALLOWED => "This path doesn't take this method.".to_owned(),
        status if status.is_server_error() => {
            error!(error = %err, "a request failed");
            "Something went wrong here.".to_owned()
        }
        _ => err.to_string(),
    };
    Problem::new(status, detail).into_response()
}
