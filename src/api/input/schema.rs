//! Judges JSON by the schema that the documents show, and names every bad field.

use std::sync::Arc;

use parking_lot::Mutex;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use serde_json::Value;

use super::text;
use crate::api::problem::FieldErrors;

/// Schemas by the name of the type that they were registered for.
type Cache = Mutex<Vec<(&'static str, Arc<Registry>)>>;

/// The schemas that `T` is made of, built once per type.
pub fn of<T: Type>() -> Arc<Registry> {
    static CACHE: Cache = Cache::new(Vec::new());
    let name = std::any::type_name::<T>();
    let mut cache = CACHE.lock();
    if let Some((_, registry)) = cache.iter().find(|(known, _)| *known == name) {
        return registry.clone();
    }
    let mut registry = Registry::new();
    T::register(&mut registry);
    let registry = Arc::new(registry);
    cache.push((name, registry.clone()));
    registry
}

/// Trims texts, then adds a complaint for everything in `value` that its schema doesn't allow.
pub fn judge(registry: &Registry, schema: &MetaSchemaRef, value: &mut Value) -> FieldErrors {
    let mut judge = Judge { registry, errors: FieldErrors::default() };
    judge.value(schema, value, "");
    judge.errors
}

struct Judge<'a> {
    registry: &'a Registry,
    errors: FieldErrors,
}

impl Judge<'_> {
    fn value(&mut self, schema: &MetaSchemaRef, value: &mut Value, path: &str) {
        let registry = self.registry;
        let schema = match schema {
            MetaSchemaRef::Inline(schema) => schema,
            MetaSchemaRef::Reference(name) => match registry.schemas.get(name) {
                Some(schema) => schema,
                None => return,
            },
        };
        if value.is_null() {
            if !schema.nullable {
                self.complain(path, "must not be null");
            }
            return;
        }
        for part in &schema.all_of {
            self.value(part, value, path);
        }
        match (schema.ty, value) {
            ("object", Value::Object(object)) => self.object(schema, object, path),
            ("array", Value::Array(items)) => self.array(schema, items, path),
            ("string", Value::String(text)) => self.text(schema, text, path),
            ("integer", Value::Number(number)) if number.is_u64() && !number.is_i64() => {
                self.complain(path, format!("must be at most {}", i64::MAX));
            }
            ("integer", Value::Number(number)) if !number.is_f64() => {
                self.number(schema, number.as_f64().unwrap_or(f64::MAX), path);
            }
            ("number", Value::Number(number)) => {
                self.number(schema, number.as_f64().unwrap_or(f64::MAX), path);
            }
            ("boolean", Value::Bool(_)) | ("", _) => {}
            (expected, _) => self.complain(path, describe_type(expected)),
        }
    }

    fn object(
        &mut self,
        schema: &MetaSchema,
        object: &mut serde_json::Map<String, Value>,
        path: &str,
    ) {
        for (name, property) in &schema.properties {
            match object.get_mut(*name) {
                Some(value) => self.value(property, value, &join(path, name)),
                None if schema.required.contains(name) => {
                    self.complain(&join(path, name), "is required");
                }
                None => {}
            }
        }
        for name in object.keys() {
            if !schema.properties.iter().any(|(known, _)| known == name) {
                self.complain(&join(path, name), "is not a field of this request");
            }
        }
    }

    fn array(&mut self, schema: &MetaSchema, items: &mut [Value], path: &str) {
        if let Some(most) = schema.max_items.filter(|most| items.len() > *most) {
            self.complain(path, format!("must have at most {most} entries"));
            return;
        }
        if let Some(item) = &schema.items {
            for (index, value) in items.iter_mut().enumerate() {
                self.value(item, value, &format!("{path}[{index}]"));
            }
        }
    }

    fn text(&mut self, schema: &MetaSchema, text: &mut String, path: &str) {
        let format = schema.format.unwrap_or_default();
        if format != "password" {
            *text = text.trim().to_owned();
        }
        if !schema.enum_items.is_empty() {
            if !schema.enum_items.iter().any(|item| item == text.as_str()) {
                let allowed: Vec<&str> =
                    schema.enum_items.iter().filter_map(Value::as_str).collect();
                self.complain(path, format!("must be one of {}", allowed.join(", ")));
            }
            return;
        }
        let length = text.chars().count();
        if let Some(least) = schema.min_length.filter(|least| length < *least) {
            self.complain(path, format!("must have at least {least} characters"));
        } else if let Some(most) = schema.max_length.filter(|most| length > *most) {
            self.complain(path, format!("must have at most {most} characters"));
        } else if let Err(message) = text::check(format, text) {
            self.complain(path, message);
        }
    }

    fn number(&mut self, schema: &MetaSchema, number: f64, path: &str) {
        let (lowest, highest) = bounds(schema);
        if number < lowest {
            self.complain(path, format!("must be at least {lowest}"));
        } else if number > highest {
            self.complain(path, format!("must be at most {highest}"));
        }
    }

    fn complain(&mut self, path: &str, message: impl Into<String>) {
        let field = if path.is_empty() { "body" } else { path };
        self.errors.add(field, message);
    }
}

/// The bounds that are written, else those that the type itself has.
fn bounds(schema: &MetaSchema) -> (f64, f64) {
    let of_type = match schema.format {
        Some("int32") => (f64::from(i32::MIN), f64::from(i32::MAX)),
        _ => (f64::MIN, f64::MAX),
    };
    (schema.minimum.unwrap_or(of_type.0), schema.maximum.unwrap_or(of_type.1))
}

fn describe_type(expected: &str) -> String {
    match expected {
        "object" => "must be an object",
        "array" => "must be a list",
        "string" => "must be a text",
        "integer" => "must be a whole number",
        "number" => "must be a number",
        "boolean" => "must be true or false",
        _ => "has the wrong type",
    }
    .to_owned()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
