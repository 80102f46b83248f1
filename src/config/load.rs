//! Reading the configuration from its sources.

use std::ffi::OsString;

use super::environment;
use super::error::ConfigError;
use super::settings::Config;

/// What was read.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Variables of the environment that begin as ours and are no settings: perhaps misspelt.
    pub strange: Vec<String>,
}

impl Config {
    /// Reads the file, if one is given, and the environment. What comes of it is not checked yet
    /// ([`Config::check`]): the command line may change it.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and line, or the variable.
    pub fn load(
        file: Option<&std::path::Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Loaded, ConfigError> {
        let mut table = toml::Table::new();
        if let Some(path) = file {
            let shown = path.display();
            let text =
                std::fs::read_to_string(path).map_err(|e| ConfigError(format!("{shown}: {e}")))?;
            // Checked here for the sake of the line numbers.
            toml::from_str::<Config>(&text).map_err(|e| ConfigError(format!("{shown}: {e}")))?;
            table = toml::from_str(&text).map_err(|e| ConfigError(format!("{shown}: {e}")))?;
        }
        let strange = environment::apply(&mut table, environment)?;
        let config = table.try_into();
        let config = config.map_err(|e: toml::de::Error| ConfigError(e.message().to_string()))?;
        Ok(Loaded { config, strange })
    }
}
