//! Which methods a path takes: every 405 says it in `Allow` (RFC 9110, section 15.5.6).

use std::collections::BTreeMap;

use poem::http::{HeaderValue, StatusCode, header};
use poem::{Endpoint, Middleware, Request, Response, Result};
use poem_openapi::OpenApi;

/// Adds `Allow` to answers that refuse a method.
#[derive(Clone)]
pub struct Allow {
    paths: Vec<Path>,
}

/// A path with its methods, as the header names them.
#[derive(Clone)]
struct Path {
    template: String,
    methods: HeaderValue,
}

pub struct AllowEndpoint<E> {
    allow: Allow,
    endpoint: E,
}

// === impl Allow ===

impl Allow {
    /// For the paths of these operations.
    pub fn of<T: OpenApi>(_: &T) -> Self {
        let mut methods: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for path in T::meta().into_iter().flat_map(|api| api.paths) {
            let named = path.operations.iter().map(|operation| operation.method.to_string());
            methods.entry(path.path).or_default().extend(named);
        }
        let to_path = |(template, methods): (String, Vec<String>)| {
            let methods = HeaderValue::try_from(methods.join(", ")).ok()?;
            Some(Path { template, methods })
        };
        Self { paths: methods.into_iter().filter_map(to_path).collect() }
    }

    /// The methods of the path that was asked for; a literal path goes before one with ids.
    fn methods(&self, asked: &str) -> Option<&HeaderValue> {
        let fitting = self.paths.iter().filter(|path| fits(&path.template, asked));
        let path = fitting.min_by_key(|path| path.template.matches(is_id_mark).count())?;
        Some(&path.methods)
    }
}

impl<E: Endpoint<Output = Response>> Middleware<E> for Allow {
    type Output = AllowEndpoint<E>;

    fn transform(&self, endpoint: E) -> AllowEndpoint<E> {
        AllowEndpoint { allow: self.clone(), endpoint }
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for AllowEndpoint<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let asked = request.uri().path().to_owned();
        let mut response = self.endpoint.call(request).await?;
        if response.status() == StatusCode::METHOD_NOT_ALLOWED
            && let Some(methods) = self.allow.methods(&asked)
        {
            response.headers_mut().insert(header::ALLOW, methods.clone());
        }
        Ok(response)
    }
}

/// Whether a path is one that the template describes, such as `/users/{id}`.
fn fits(template: &str, asked: &str) -> bool {
    let (mut template, mut asked) = (template.split('/'), asked.split('/'));
    loop {
        match (template.next(), asked.next()) {
            (None, None) => return true,
            (Some(part), Some(found)) if part == found || part.starts_with(is_id_mark) => {}
            _ => return false,
        }
    }
}

/// What an id's name begins with in a template.
fn is_id_mark(c: char) -> bool {
    matches!(c, '{' | ':')
}
