//! Passwords and secrets: Argon2id for what people choose, SHA-256 for what we draw.
//!
//! A password check costs tens of milliseconds and 19 MiB by design, so it
//! runs on the blocking pool and only a few run at once.

use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngExt;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tracing::error;

use super::problem::{Problem, broken};

/// What API tokens begin with, so that they are known when found where they shouldn't be.
pub const TOKEN_PREFIX: &str = "cc_";

/// Password hashes computed at once.
static HASHERS: Semaphore = Semaphore::const_new(4);

/// Hashes a password for storage.
///
/// # Errors
/// A 500 when hashing fails, which only a lack of memory can cause.
pub async fn hash(password: String) -> Result<String, Problem> {
    on_blocking_pool(move || hash_now(&password)).await?
}

/// Whether this is the password of that hash; without a hash it takes as long and is false.
///
/// # Errors
/// A 500 when hashing fails.
pub async fn verify(password: String, hash: Option<String>) -> Result<bool, Problem> {
    on_blocking_pool(move || match hash {
        Some(hash) => Ok(Argon2::default().verify_password(password.as_bytes(), &*hash).is_ok()),
        None => hash_now(&password).map(|_| false),
    })
    .await?
}

/// A value that can't be guessed: 32 random bytes.
pub fn random_secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// A one-time password of 20 characters that can be read aloud.
pub fn readable() -> String {
    // No characters that look alike.
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut rng = rand::rng();
    (0..20).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

/// What is stored of a secret that was drawn here: with 256 random bits, a plain hash is enough.
pub fn fingerprint(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash_now(password: &str) -> Result<String, Problem> {
    match Argon2::default().hash_password(password.as_bytes()) {
        Ok(hash) => Ok(hash.to_string()),
        Err(err) => {
            error!(error = %err, "a password can't be hashed");
            Err(broken())
        }
    }
}

async fn on_blocking_pool<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let permit = HASHERS.acquire().await.map_err(|_| broken())?;
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| broken());
    drop(permit);
    done
}
