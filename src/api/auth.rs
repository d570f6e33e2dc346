//! Signing in and out, one's own password, and API tokens.

use std::sync::Arc;

use capconduit_entity::{UserStatus, api_token, user};
use poem::http::header;
use poem::web::Data;
use poem::{IntoResponse, Request, Response};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaResponses, Registry};
use poem_openapi::{ApiResponse, Object, OpenApi};
use sea_orm::{ActiveModelTrait, IntoActiveModel, Set};
use serde_json::{Value, json};

use super::access::{Anyone, COOKIE, refuse_foreign_page, session_cookie};
use super::admin::users::User;
use super::audit::{Audited, Author, Change, Origin, SESSION, Write, shown};
use super::input::query::{PageNumber, PerPage};
use super::input::{Asked, Body, Name, Request as Input, Secret};
use super::page::{Page, Paging};
use super::password::{self, TOKEN_PREFIX, fingerprint, random_secret};
use super::problem::{
    Create, FieldErrors, List, NewSecret, Own, Refusal, Remove, SigningIn, bad_field, not_found,
    too_many_tries, wrong_credentials,
};
use super::stamp::Stamp;
use super::{Backend, Tag};
use crate::clock;
use crate::store::{sessions, users};

pub struct AuthApi;

#[derive(Object)]
#[oai(deny_unknown_fields)]
struct Login {
    #[oai(validator(max_length = 100))]
    username: Name,
    #[oai(validator(min_length = 1, max_length = 256), write_only)]
    password: Secret,
}

impl Input for Login {
    fn example() -> Value {
        json!({"username": "joe", "password": "correct horse battery"})
    }
}

#[derive(Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
struct PasswordChange {
    #[oai(validator(min_length = 1, max_length = 256), write_only)]
    current_password: Secret,
    #[oai(validator(min_length = 8, max_length = 256), write_only)]
    new_password: Secret,
}

impl Input for PasswordChange {
    fn example() -> Value {
        json!({"currentPassword": "correct horse battery", "newPassword": "staple of many words"})
    }
}

#[derive(Object)]
#[oai(deny_unknown_fields)]
struct NewToken {
    /// What the token is for.
    #[oai(validator(max_length = 100))]
    name: Name,
}

impl Input for NewToken {
    fn example() -> Value {
        json!({"name": "billing script"})
    }
}

/// What was done, in words.
#[derive(Object)]
pub struct Message {
    pub message: String,
}

#[derive(Object)]
struct SignedIn {
    message: String,
    user: User,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct SignInStatus {
    message: String,
    logged_in: bool,
    user: User,
}

/// An API token without its secret.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Token {
    id: i64,
    name: String,
    created_at: Stamp,
}

/// An API token with its secret, which is never shown again.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct TokenWithSecret {
    id: i64,
    name: String,
    /// Send it as `Authorization: Bearer <token>`.
    token: String,
    created_at: Stamp,
}

#[derive(ApiResponse)]
enum TokenCreated {
    /// The token, shown this once.
    #[oai(status = 201)]
    Created(Json<TokenWithSecret>),
}

/// Done.
#[derive(ApiResponse)]
pub enum Gone {
    /// It is no more.
    #[oai(status = 204)]
    Gone,
}

/// An answer that also sets the session cookie.
struct WithCookie<T> {
    answer: Json<T>,
    cookie: String,
}

#[OpenApi(prefix_path = "/api/auth", tag = "Tag::Auth")]
impl AuthApi {
    /// Sign in
    ///
    /// Sets an HttpOnly session cookie. A wrong password, an unknown user and
    /// an account that isn't active get the same answer. After too many failures
    /// of one account or from one address, no further try is looked at for a while.
    #[oai(path = "/login", method = "post", operation_id = "login")]
    async fn login(
        &self,
        backend: Data<&Arc<Backend>>,
        request: &Request,
        Body(login): Body<Login>,
    ) -> Result<WithCookie<SignedIn>, Refusal<SigningIn>> {
        refuse_foreign_page(request)?;
        let origin = Origin::of(request);
        let (username, address) = (login.username.to_string(), origin.address);
        backend.tries.begin(&username, address, clock::now()).map_err(too_many_tries)?;
        let user = users::find_by_name(&backend.db, &login.username).await?;
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let is_right = password::verify(login.password.into(), hash).await?;
        let user = user
            .filter(|user| is_right && user.status == UserStatus::Active)
            .ok_or_else(wrong_credentials)?;
        backend.tries.succeeded(&username, address);
        let id = random_secret();
        let now = clock::now();
        let expires_at = now + backend.session.lifetime;
        let write = Write::begin(&backend.db, Author::from(&user), origin).await?;
        sessions::begin(&write.txn, user.id, fingerprint(&id), now, expires_at).await?;
        write.commit(Change::to(SESSION, user.id)).await?;
        let answer = SignedIn { message: "Signed in.".to_owned(), user: user.into() };
        Ok(WithCookie { answer: Json(answer), cookie: backend.session.cookie(&id) })
    }

    /// Sign out
    ///
    /// Ends the session that the request came by.
    #[oai(path = "/logout", method = "post", operation_id = "logout")]
    async fn logout(
        &self,
        caller: Anyone,
        request: &Request,
    ) -> Result<WithCookie<Message>, Refusal<Own>> {
        if let Some(id) = session_cookie(request.headers()) {
            let write = caller.begin_write().await?;
            sessions::end(&write.txn, &fingerprint(id)).await?;
            write.commit(Change::to(SESSION, caller.user.id)).await?;
        }
        let answer = Message { message: "Signed out.".to_owned() };
        Ok(WithCookie { answer: Json(answer), cookie: caller.backend.session.no_cookie() })
    }

    /// Who am I
    ///
    /// 401 for whoever isn't signed in.
    #[oai(path = "/status", method = "get", operation_id = "getSignInStatus")]
    async fn status(&self, caller: Anyone) -> Result<Json<SignInStatus>, Refusal<Own>> {
        let message = "Signed in.".to_owned();
        Ok(Json(SignInStatus { message, logged_in: true, user: caller.user.into() }))
    }

    /// Change my password
    ///
    /// Ends all other sessions and all API tokens of the account. Too many wrong
    /// current passwords count as failed sign-ins.
    #[oai(path = "/password", method = "put", operation_id = "changeMyPassword")]
    async fn change_password(
        &self,
        caller: Anyone,
        Body(change): Body<PasswordChange>,
    ) -> Result<Json<Message>, Refusal<NewSecret>> {
        let (backend, address) = (&caller.backend, caller.origin.address);
        backend
            .tries
            .begin(&caller.user.username, address, clock::now())
            .map_err(too_many_tries)?;
        let current = Some(caller.user.password_hash.clone());
        if !password::verify(change.current_password.into(), current).await? {
            return Err(bad_field("currentPassword", "is wrong").into());
        }
        backend.tries.succeeded(&caller.user.username, address);
        let hash = password::hash(change.new_password.into()).await?;
        let write = caller.begin_write().await?;
        let (id, kept) = (caller.user.id, caller.credential.session().unwrap_or_default());
        let change = Change::to(user::Model::RESOURCE, id).with_new_password(true);
        let mut row = caller.user.into_active_model();
        row.password_hash = Set(hash);
        row.updated_at = Set(clock::now());
        row.update(&write.txn).await?;
        sessions::end_all_but(&write.txn, id, &kept).await?;
        write.commit(change).await?;
        Ok(Json(Message { message: "The password is changed.".to_owned() }))
    }

    /// List my API tokens
    ///
    /// Without their secrets, which are shown once only.
    #[oai(path = "/tokens", method = "get", operation_id = "listTokens")]
    async fn tokens(
        &self,
        caller: Anyone,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<Page<Token>>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        errors.into_result()?;
        let slice = paging.select(sessions::tokens(caller.user.id), &caller.backend.db).await?;
        Ok(Json(paging.page(slice, Token::from)))
    }

    /// Create an API token
    ///
    /// The token is in this answer and never shown again.
    #[oai(path = "/tokens", method = "post", operation_id = "createToken")]
    async fn create_token(
        &self,
        caller: Anyone,
        Body(new): Body<NewToken>,
    ) -> Result<TokenCreated, Refusal<Create>> {
        let token = format!("{TOKEN_PREFIX}{}", random_secret());
        let (user, hash) = (caller.user.id, fingerprint(&token));
        let write = caller.begin_write().await?;
        let row =
            sessions::create_token(&write.txn, user, new.name.into(), hash, clock::now()).await?;
        write.commit(Change::created(&row)).await?;
        let created_at = row.created_at.into();
        let answer = TokenWithSecret { id: row.id, name: row.name, token, created_at };
        Ok(TokenCreated::Created(Json(answer)))
    }

    /// Delete an API token
    ///
    /// It stops working at once.
    #[oai(path = "/tokens/:id", method = "delete", operation_id = "deleteToken")]
    async fn delete_token(&self, caller: Anyone, id: Path<i64>) -> Result<Gone, Refusal<Remove>> {
        let write = caller.begin_write().await?;
        let row = sessions::find_token(&write.txn, caller.user.id, id.0).await?;
        let row = row.ok_or_else(|| not_found("token", id.0))?;
        if !sessions::delete_token(&write.txn, caller.user.id, id.0).await? {
            return Err(not_found("token", id.0).into());
        }
        write.commit(Change::deleted(&row)).await?;
        Ok(Gone::Gone)
    }
}

impl Audited for api_token::Model {
    const RESOURCE: &'static str = "token";

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn facts(&self) -> Option<Value> {
        shown(&Token::from(self.clone()))
    }
}

impl From<api_token::Model> for Token {
    fn from(row: api_token::Model) -> Self {
        Self { id: row.id, name: row.name, created_at: row.created_at.into() }
    }
}

impl<T: poem_openapi::types::ToJSON> IntoResponse for WithCookie<T> {
    fn into_response(self) -> Response {
        self.answer.with_header(header::SET_COOKIE, self.cookie).into_response()
    }
}

impl<T: poem_openapi::types::ToJSON> ApiResponse for WithCookie<T> {
    fn meta() -> MetaResponses {
        Json::<T>::meta()
    }

    fn register(registry: &mut Registry) {
        <Json<T> as ApiResponse>::register(registry);
    }
}

impl super::SessionSettings {
    fn cookie(&self, id: &str) -> String {
        self.set_cookie(id, self.lifetime.num_seconds())
    }

    fn no_cookie(&self) -> String {
        self.set_cookie("", 0)
    }

    fn set_cookie(&self, value: &str, seconds: i64) -> String {
        let secure = if self.secure_cookie { "; Secure" } else { "" };
        format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
    }
}
