//! A loaded plugin.

use crate::{OptionValue, PjrtError, api::Api, environment};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A plugin: a shared library that exports `GetPjrtApi`. Cheap to clone, and never unloaded.
#[derive(Clone)]
pub struct Plugin {
    pub(crate) api: Arc<Api>,
}

impl Plugin {
    /// Loads a plugin. Its initializers run in this process: name only files that you trust.
    ///
    /// # Errors
    /// If the file is no plugin, speaks another major version, or fails to initialize; and for
    /// libtpu, if nothing forbids its queries over the network (see
    /// [`prepare_environment`](crate::prepare_environment)).
    pub fn load(path: impl AsRef<Path>) -> Result<Self, PjrtError> {
        let path: PathBuf = path.as_ref().to_owned();
        environment::check(&path)?;
        Ok(Self { api: Arc::new(Api::load(&path)?) })
    }

    /// Major and minor version of the API that it speaks.
    #[must_use]
    pub fn api_version(&self) -> (i32, i32) {
        self.api.version()
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.api.path()
    }

    /// What it tells about itself, such as the versions of XLA and StableHLO.
    ///
    /// # Errors
    /// If the plugin does not tell.
    pub fn attributes(&self) -> Result<Vec<(String, OptionValue)>, PjrtError> {
        self.api.attributes()
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plugin({})", self.api.name())
    }
}
