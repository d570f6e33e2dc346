//! The body of a request: read within a limit, judged whole, then parsed.

use poem::error::ReadBodyError;
use poem::{RequestBody, Result};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchemaRef, Registry};
use poem_openapi::types::ParseFromJSON;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde_json::Value;

use super::schema;
use crate::api::problem::{FieldErrors, Problem, bad_input, bad_request, not_json, too_large};

/// Bytes that a body may have.
pub const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// A JSON body, checked.
pub struct Body<T>(pub T);

/// A kind of body.
pub trait Request: ParseFromJSON {
    /// One that is right, for the documents.
    fn example() -> Value;

    /// Whether a body without any field makes sense: not in an update.
    const MAY_BE_EMPTY: bool = true;

    /// Adds complaints that no single field's schema can make.
    fn judge(_body: &Value, _errors: &mut FieldErrors) {}
}

impl<T: Request> Body<T> {
    fn parse(bytes: &[u8]) -> Result<T, Problem> {
        let value = serde_json::from_slice(bytes)
            .map_err(|err| bad_request(format!("The body isn't JSON: {err}.")))?;
        Self::judged(value).map_err(bad_input)
    }

    /// What came as JSON, judged whole.
    ///
    /// # Errors
    /// Every bad field.
    pub fn judged(mut value: Value) -> Result<T, FieldErrors> {
        let mut errors = schema::judge(&schema::of::<T>(), &T::schema_ref(), &mut value);
        T::judge(&value, &mut errors);
        if !T::MAY_BE_EMPTY && value.as_object().is_some_and(serde_json::Map::is_empty) {
            errors.add("body", "must name at least one field to change");
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        T::parse_from_json(Some(value)).map_err(|err| {
            let mut errors = FieldErrors::default();
            errors.add("body", err.into_message());
            errors
        })
    }
}

impl<'a, T: Request> ApiExtractor<'a> for Body<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
        let example = T::example();
        debug_assert!(Self::parse(example.to_string().as_bytes()).is_ok(), "{example} is refused");
        if let Some(schema) = registry.schemas.get_mut(&*T::name()) {
            schema.example = Some(example);
            schema.min_properties = (!T::MAY_BE_EMPTY).then_some(1);
        }
    }

    fn request_meta() -> Option<MetaRequest> {
        let schema: MetaSchemaRef = T::schema_ref();
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType { content_type: "application/json", schema }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a poem::Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> Result<Self> {
        if !is_json(request.content_type()) {
            return Err(not_json().into());
        }
        let bytes =
            body.take()?.into_bytes_limit(BODY_LIMIT_BYTES).await.map_err(|err| match err {
                ReadBodyError::PayloadTooLarge => too_large(BODY_LIMIT_BYTES),
                _ => bad_request("The body couldn't be read."),
            })?;
        Ok(Self(Self::parse(&bytes)?))
    }
}

fn is_json(content_type: Option<&str>) -> bool {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}
