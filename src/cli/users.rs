//! `capconduit user`: accounts from the command line, for when nobody can sign in.

use capconduit_entity::{Role, user};
use clap::{Subcommand, ValueEnum};
use sea_orm::{ActiveModelTrait, DatabaseConnection, DbErr, SqlErr};

use super::place::{NoPlace, Place};
use crate::api::audit::{Audited, Author, Change, Origin, Write};
use crate::api::password;
use crate::store::users;
use crate::{clock, db};

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create an account; its one-time password is printed.
    Create {
        /// 3 to 100 characters.
        username: String,
        #[arg(long)]
        email: String,
        /// What the account may do.
        #[arg(long, value_enum)]
        role: RoleName,
        #[command(flatten)]
        database: Place,
    },
    /// Give an account a new one-time password, and end its sessions and tokens.
    ResetPassword {
        username: String,
        #[command(flatten)]
        database: Place,
    },
    /// List all accounts.
    List {
        #[command(flatten)]
        database: Place,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleName {
    Admin,
    Staff,
    /// A seller.
    User,
}

/// Why it was not done: one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Place(#[from] NoPlace),
    #[error("the database can't be used: {0}")]
    Database(#[from] DbErr),
    #[error("{field} {problem}")]
    Invalid { field: &'static str, problem: &'static str },
    #[error("the username or the e-mail address is taken")]
    Taken,
    #[error("there is no user {0}")]
    Unknown(String),
    #[error("the password couldn't be hashed")]
    Hash,
}

impl Command {
    /// Does it, and prints what came of it.
    ///
    /// # Errors
    /// One sentence that says what is wrong; then nothing was changed.
    pub async fn run(self) -> Result<(), Refusal> {
        match self {
            Self::Create { username, email, role, database } => {
                create(&open(&database).await?, username, email, role.into()).await
            }
            Self::ResetPassword { username, database } => {
                reset_password(&open(&database).await?, &username).await
            }
            Self::List { database } => list(&open(&database).await?).await,
        }
    }
}

async fn open(place: &Place) -> Result<DatabaseConnection, Refusal> {
    let db = db::connect(&place.url()?).await?;
    db::migrate(&db).await?;
    Ok(db)
}

async fn create(
    db: &DatabaseConnection,
    username: String,
    email: String,
    role: Role,
) -> Result<(), Refusal> {
    let username = username.trim().to_owned();
    if !(3..=100).contains(&username.chars().count()) || username.chars().any(char::is_control) {
        return Err(Refusal::Invalid {
            field: "username",
            problem: "must have 3 to 100 characters",
        });
    }
    if !email.contains('@') || email.len() > 254 || email.chars().any(|c| c.is_control()) {
        return Err(Refusal::Invalid { field: "--email", problem: "must be an e-mail address" });
    }
    let (one_time, hash) = one_time_password().await?;
    let write = begin_write(db, "user create").await?;
    let row = users::new_account(&username, &email, hash, role, clock::now());
    let row = row.insert(&write.txn).await.map_err(|error| match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => Refusal::Taken,
        _ => error.into(),
    })?;
    write.commit(Change::created(&row)).await?;
    println!("User {username} ({role}) is created. One-time password: {one_time}");
    Ok(())
}

async fn reset_password(db: &DatabaseConnection, username: &str) -> Result<(), Refusal> {
    let (one_time, hash) = one_time_password().await?;
    let write = begin_write(db, "user reset-password").await?;
    let row = users::find_by_name(&write.txn, username).await?;
    let row = row.ok_or_else(|| Refusal::Unknown(username.to_owned()))?;
    let change = Change::to(user::Model::RESOURCE, row.id).with_new_password(true);
    users::set_password(&write.txn, row, hash, clock::now()).await?;
    write.commit(change).await?;
    println!("User {username} is signed out everywhere. One-time password: {one_time}");
    Ok(())
}

async fn list(db: &DatabaseConnection) -> Result<(), Refusal> {
    let rows = users::all().all(db).await?;
    println!("{:>6}  {:<24} {:<6} {:<16} EMAIL", "ID", "USERNAME", "ROLE", "STATUS");
    for row in rows {
        let (role, status) = (row.role.as_str(), row.status.as_str());
        println!("{:>6}  {:<24} {role:<6} {status:<16} {}", row.id, row.username, row.email);
    }
    Ok(())
}

/// Begins a write that the audit log will have.
async fn begin_write(db: &DatabaseConnection, command: &str) -> Result<Write, DbErr> {
    Write::begin(db, Author::CommandLine, Origin::command(command)).await
}

async fn one_time_password() -> Result<(String, String), Refusal> {
    let one_time = password::readable();
    let hash = password::hash(one_time.clone()).await.map_err(|_| Refusal::Hash)?;
    Ok((one_time, hash))
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Admin => Self::Admin,
            RoleName::Staff => Self::Staff,
            RoleName::User => Self::User,
        }
    }
}
