//! Which database a command works on.

use std::path::{Path, PathBuf};

use clap::Args;
use sea_orm::DatabaseConnection;

use crate::config::{Config, ConfigError};
use crate::{db, embedded};

/// Where the database is.
#[derive(Args, Debug)]
pub struct Place {
    /// The data folder of `capconduit run`.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data: Option<PathBuf>,
    /// Settings of `capconduit serve`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why there is none: one sentence.
#[derive(Debug, thiserror::Error)]
pub enum NoPlace {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "there is no database in {0}: name the folder of `capconduit run` with --data, or the settings of `capconduit serve` with --config"
    )]
    NoDatabase(PathBuf),
    #[error("the database can't be used: {0}")]
    Database(#[from] sea_orm::DbErr),
}

/// The data folder of `capconduit run` where nobody names one.
const USUAL_FOLDER: &str = ".run";
const SQLITE: &str = "sqlite://";

// === impl Place ===

impl Place {
    pub fn url(&self) -> Result<String, NoPlace> {
        match &self.data {
            Some(folder) => in_folder(folder),
            None => Ok(Config::database_url(self.config.as_deref())?),
        }
    }

    /// Opens what is there already, to read it as it is: also beside a running service.
    ///
    /// Where nothing is named, neither here nor in the environment, it is that of
    /// `capconduit run` in this folder.
    pub async fn open_to_read(&self) -> Result<DatabaseConnection, NoPlace> {
        let is_named = self.data.is_some()
            || self.config.is_some()
            || Config::given(None, "database.url")?.is_some();
        let url = if is_named { self.url()? } else { in_folder(Path::new(USUAL_FOLDER))? };
        // Nothing is created by looking.
        if let Some(file) = url.strip_prefix(SQLITE) {
            let file = Path::new(file.split('?').next().unwrap_or_default());
            if !file.exists() {
                return Err(NoPlace::NoDatabase(file.to_owned()));
            }
        }
        Ok(db::connect(&url).await?)
    }
}

fn in_folder(folder: &Path) -> Result<String, NoPlace> {
    let file = folder.join("capconduit.db");
    let settings = embedded::settings_file(folder);
    if file.exists() {
        Ok(format!("{SQLITE}{}", file.display()))
    } else if settings.exists() {
        Ok(Config::database_url(Some(&settings))?)
    } else {
        Err(NoPlace::NoDatabase(folder.to_owned()))
    }
}
