//! What comes in, and how it is judged.
//!
//! A request is judged whole, so that one answer names every bad field: the
//! raw JSON is walked against the very schema that the documents show
//! ([`schema`]), texts with a form of their own (E.164, SIP URIs, codecs) are
//! judged by the format that the schema gives them ([`text`]), and rules that
//! span fields are added by the request itself ([`body::Request`]). Only then
//! is the JSON parsed.

pub mod body;
pub mod patch;
pub mod query;
pub mod schema;
pub mod text;
pub mod word;

pub use body::{Body, Request};
pub use patch::{Clearable, Given, patch, patch_clearable};
pub use query::Asked;
pub use text::{
    Codecs, E164Text, Email, Line, Moment, Name, Paragraph, PjsipId, PjsipText, PjsipUser, Secret,
    SipUri, ZoneName,
};
pub use word::{Word, YesNo};
