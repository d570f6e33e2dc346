//! Says in a document what poem-openapi 5.1 has no words for.
//!
//! - Unknown fields are refused: every object that a request is made of gets
//!   `additionalProperties: false`.
//! - A reference that has a description stands alone in its `allOf`. What is
//!   generated has the description as a second part, without a type, and
//!   generators of clients refuse the whole operation for it.

use std::collections::BTreeSet;

use poem_openapi::{OpenApi, OpenApiService};
use serde_yaml::{Mapping, Value};
use tracing::error;

/// The document in YAML.
pub fn to_yaml<T: OpenApi>(service: &OpenApiService<T, ()>) -> String {
    let generated = service.spec_yaml();
    close(&generated).and_then(|document| serde_yaml::to_string(&document)).unwrap_or_else(|err| {
        error!(error = %err, "the document stays as it was generated");
        generated
    })
}

/// A page that shows the document.
pub fn to_swagger_ui<T: OpenApi>(service: &OpenApiService<T, ()>) -> String {
    let page = service.swagger_ui_html();
    let generated = service.spec();
    let closed = close(&generated).ok().and_then(|closed| serde_json::to_string(&closed).ok());
    closed.map_or_else(|| page.clone(), |closed| page.replacen(&generated, &closed, 1))
}

/// YAML has JSON in it.
fn close(document: &str) -> Result<Value, serde_yaml::Error> {
    let mut document: Value = serde_yaml::from_str(document)?;
    leave_references_alone(&mut document);
    let mut sent = BTreeSet::new();
    for operation in operations(&document) {
        collect(&operation["requestBody"], &document, &mut sent);
    }
    for name in sent {
        let schema = &mut document["components"]["schemas"][name.as_str()];
        if let Some(schema) = schema.as_mapping_mut().filter(is_object) {
            schema.insert("additionalProperties".into(), false.into());
        }
    }
    Ok(document)
}

/// Takes out of each `allOf` what stands beside it anyway.
fn leave_references_alone(part: &mut Value) {
    match part {
        Value::Mapping(entries) => {
            let beside = entries.clone();
            if let Some(Value::Sequence(parts)) = entries.get_mut("allOf") {
                parts.retain(|part| !is_within(part, &beside));
            }
            entries.values_mut().for_each(leave_references_alone);
        }
        Value::Sequence(values) => values.iter_mut().for_each(leave_references_alone),
        _ => {}
    }
}

fn is_within(part: &Value, whole: &Mapping) -> bool {
    let Some(entries) = part.as_mapping() else { return false };
    entries.iter().all(|(name, value)| whole.get(name) == Some(value))
}

fn operations(document: &Value) -> impl Iterator<Item = &Value> {
    let paths = document["paths"].as_mapping().into_iter().flat_map(Mapping::values);
    paths.filter_map(Value::as_mapping).flat_map(Mapping::values)
}

/// The names of all schemas that `part` refers to, directly or through others.
fn collect(part: &Value, document: &Value, names: &mut BTreeSet<String>) {
    match part {
        Value::Mapping(entries) => {
            if let Some(name) = entries.get("$ref").and_then(Value::as_str).and_then(schema_name)
                && names.insert(name.to_owned())
            {
                collect(&document["components"]["schemas"][name], document, names);
            }
            for value in entries.values() {
                collect(value, document, names);
            }
        }
        Value::Sequence(values) => {
            for value in values {
                collect(value, document, names);
            }
        }
        _ => {}
    }
}

fn is_object(schema: &&mut Mapping) -> bool {
    schema.get("type").is_some_and(|kind| kind == "object")
}

fn schema_name(reference: &str) -> Option<&str> {
    reference.strip_prefix("#/components/schemas/")
}
