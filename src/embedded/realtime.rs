//! Where Asterisk reads clients: the service's SQLite file, or its PostgreSQL
//! database with an account of Asterisk's own.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use reqwest::Url;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Realtime {
    Sqlite { file: PathBuf },
    Postgres(Account),
}

/// An account in PostgreSQL, of which Asterisk makes an unquoted line.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    host: String,
    port: u16,
    database: String,
    user: String,
    password: String,
}

/// Why Asterisk can't read clients there.
#[derive(Debug, thiserror::Error)]
pub enum RealtimeError {
    #[error("setting `{setting}` must be postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    NotUrl { setting: &'static str },
    #[error(
        "setting `{setting}`: Asterisk can't use this {part}: it must have 1 to {MOST_CHARACTERS} characters, all of them letters, digits or one of - _ . : ~ ! $ % & * + = / @"
    )]
    Unfit { setting: &'static str, part: &'static str },
    #[error(
        "setting `database.url` is not PostgreSQL, which the production profile is made for: name one, or leave it out and have a private one"
    )]
    NotPostgres,
}

/// `MAX_DB_OPTION_SIZE` in Asterisk's res/res_config_pgsql.c, less the closing zero.
const MOST_CHARACTERS: usize = 63;

// === impl Realtime ===

impl Realtime {
    /// Takes the URL that `setting` holds apart.
    ///
    /// # Errors
    /// When it isn't one, or has what Asterisk's configuration can't express.
    pub fn postgres(setting: &'static str, url: &str) -> Result<Self, RealtimeError> {
        let not_url = || RealtimeError::NotUrl { setting };
        let url = Url::parse(url).map_err(|_| not_url())?;
        let host = url.host_str().ok_or_else(not_url)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let decoded = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(|text| text.into_owned()).map_err(|_| not_url())
        };
        let account = Account {
            host,
            port: url.port().unwrap_or(5432),
            database: decoded(url.path().trim_start_matches('/'))?,
            user: decoded(url.username())?,
            password: decoded(url.password().unwrap_or_default())?,
        };
        account.check(setting)?;
        Ok(Self::Postgres(account))
    }

    /// The driver, as Asterisk calls it.
    pub const fn driver(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite3",
            Self::Postgres(_) => "pgsql",
        }
    }

    /// The template for the other driver.
    pub const fn file_of_other(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "res_pgsql.conf",
            Self::Postgres(_) => "res_config_sqlite3.conf",
        }
    }

    /// What stands in the templates' places.
    pub fn values(&self) -> Vec<(&'static str, String)> {
        let mut values = vec![("@REALTIME_DRIVER@", self.driver().to_owned())];
        match self {
            Self::Sqlite { file } => values.push(("@DATABASE_FILE@", file.display().to_string())),
            Self::Postgres(account) => values.extend([
                ("@DATABASE_HOST@", account.host.clone()),
                ("@DATABASE_PORT@", account.port.to_string()),
                ("@DATABASE_NAME@", account.database.clone()),
                ("@DATABASE_USER@", account.user.clone()),
                ("@DATABASE_PASSWORD@", account.password.clone()),
            ]),
        }
        values
    }
}

// === impl Account ===

impl Account {
    fn check(&self, setting: &'static str) -> Result<(), RealtimeError> {
        let is_fit = |text: &str| {
            text.len() <= MOST_CHARACTERS
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:~!$%&*+=/@".contains(c))
        };
        for (part, text) in
            [("host", &self.host), ("database", &self.database), ("user", &self.user)]
        {
            if text.is_empty() || !is_fit(text) {
                return Err(RealtimeError::Unfit { setting, part });
            }
        }
        // None where the server lets it in by its address.
        if is_fit(&self.password) {
            Ok(())
        } else {
            Err(RealtimeError::Unfit { setting, part: "password" })
        }
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_asterisk_can_express_is_taken_apart() {
        let url = "postgres://asterisk:p%40ss@db.example:6432/capconduit?sslmode=require";
        let values = Realtime::postgres("database.url", url).unwrap().values();
        let value = |name| values.iter().find(|(place, _)| *place == name).unwrap().1.as_str();
        assert_eq!(
            ["@DATABASE_HOST@", "@DATABASE_PORT@", "@DATABASE_NAME@", "@DATABASE_USER@"].map(value),
            ["db.example", "6432", "capconduit", "asterisk"]
        );
        assert_eq!(value("@DATABASE_PASSWORD@"), "p@ss");
    }

    #[test]
    fn what_would_break_out_of_asterisks_line_is_refused() {
        for (url, part) in [
            ("postgres://a:b%20sslmode=disable@h/d".to_owned(), "password"),
            ("postgres://a:b%3Bc@h/d".to_owned(), "password"),
            ("postgres://a:b%0A@h/d".to_owned(), "password"),
            (format!("postgres://a:{}@h/d", "x".repeat(64)), "password"),
            ("postgres://a:b@h/".to_owned(), "database"),
            ("postgres://:b@h/d".to_owned(), "user"),
        ] {
            let refusal = Realtime::postgres("database.realtime_url", &url).unwrap_err();
            let said = refusal.to_string();
            assert!(said.contains("database.realtime_url") && said.contains(part), "{said}");
        }
        assert!(Realtime::postgres("database.url", "not a url").is_err());
    }
}
