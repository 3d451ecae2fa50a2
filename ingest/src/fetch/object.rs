//! Buckets: Amazon S3 and its likes, Google Cloud Storage, Azure Blob Storage.

use super::{
    FetchOptions,
    address::Service,
    error::{Problem, told},
    web::{Opened, plain_tag},
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, GetRange, ObjectMeta, ObjectStore,
    RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    client::{HttpError, HttpErrorKind},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    path::Path,
};
use std::{sync::Arc, time::Duration};

/// A bucket with the credentials of the environment.
#[derive(Clone)]
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    stall: Duration,
}

/// A listed object.
pub(super) struct Object {
    pub(super) key: String,
    pub(super) bytes: u64,
    pub(super) version: Option<String>,
}

impl Bucket {
    pub(super) fn open(
        service: Service,
        bucket: &str,
        options: &FetchOptions,
    ) -> Result<Self, Problem> {
        // Attempts are counted where a download knows how far it came; only a short burst of faults
        // is bridged here.
        let retry = RetryConfig {
            max_retries: 1,
            retry_timeout: options.stall,
            backoff: BackoffConfig { init_backoff: options.pause, ..BackoffConfig::default() },
        };
        let client = |plain: bool| {
            ClientOptions::new()
                .with_timeout_disabled()
                .with_read_timeout(options.stall)
                .with_connect_timeout(options.stall.min(Duration::from_secs(15)))
                .with_allow_http(plain)
        };
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let given = |names: &[&str]| names.iter().any(|name| set(name));
        let plain = |name: &str| std::env::var(name).is_ok_and(|value| is_true(&value));
        let built = match service {
            Service::S3 => {
                let mut builder = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_retry(retry)
                    .with_client_options(client(plain("AWS_ALLOW_HTTP")));
                if builder.get_config_value(&AmazonS3ConfigKey::Region).is_none() {
                    builder = builder.with_region("us-east-1");
                }
                let named = [
                    "AWS_ACCESS_KEY_ID",
                    "AWS_WEB_IDENTITY_TOKEN_FILE",
                    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                    "AWS_METADATA_ENDPOINT",
                    "AWS_SKIP_SIGNATURE",
                ];
                // Without this, a public bucket would wait for the metadata service of a cloud.
                if !given(&named) {
                    builder = builder.with_skip_signature(true);
                }
                builder.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
            }
            Service::Gcs => {
                let mut builder = GoogleCloudStorageBuilder::from_env()
                    .with_bucket_name(bucket)
                    .with_retry(retry)
                    .with_client_options(client(plain("GOOGLE_ALLOW_HTTP")));
                let named = [
                    "SERVICE_ACCOUNT",
                    "GOOGLE_SERVICE_ACCOUNT",
                    "GOOGLE_SERVICE_ACCOUNT_PATH",
                    "GOOGLE_SERVICE_ACCOUNT_KEY",
                    "GOOGLE_APPLICATION_CREDENTIALS",
                    "GOOGLE_SKIP_SIGNATURE",
                ];
                if !given(&named) {
                    builder = builder.with_config(GoogleConfigKey::SkipSignature, "true");
                }
                builder.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
            }
            Service::Azure => {
                let mut builder = MicrosoftAzureBuilder::from_env()
                    .with_container_name(bucket)
                    .with_retry(retry)
                    .with_client_options(client(plain("AZURE_ALLOW_HTTP")));
                let named = [
                    "AZURE_STORAGE_ACCOUNT_KEY",
                    "AZURE_STORAGE_ACCESS_KEY",
                    "AZURE_STORAGE_SAS_TOKEN",
                    "AZURE_STORAGE_SAS_KEY",
                    "AZURE_STORAGE_TOKEN",
                    "AZURE_CLIENT_ID",
                    "AZURE_STORAGE_CLIENT_ID",
                    "AZURE_SKIP_SIGNATURE",
                ];
                if !given(&named) {
                    builder = builder.with_config(AzureConfigKey::SkipSignature, "true");
                }
                builder.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
            }
        };
        let store = built.map_err(|e| Problem::Lasting(told(&e.to_string())))?;
        Ok(Self { store, stall: options.stall })
    }

    pub(super) async fn open_at(&self, key: &str, offset: u64) -> Result<Opened, Problem> {
        let options = GetOptions {
            range: (offset > 0).then_some(GetRange::Offset(offset)),
            ..GetOptions::default()
        };
        let place = path(key)?;
        let answer = self.timely(self.store.get_opts(&place, options)).await?;
        let answer = answer.map_err(|e| problem(&e))?;
        Ok(Opened {
            offset: answer.range.start,
            total: Some(answer.meta.size),
            version: version(&answer.meta),
            body: answer.into_stream().map_err(|e| problem(&e)).boxed(),
        })
    }

    pub(super) async fn look(&self, key: &str) -> Result<Object, Problem> {
        let place = path(key)?;
        let options = GetOptions { head: true, ..GetOptions::default() };
        let answer = self.timely(self.store.get_opts(&place, options)).await?;
        Ok(object(&answer.map_err(|e| problem(&e))?.meta))
    }

    /// All objects below a folder, which ends at a slash; the empty folder is the whole bucket.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Object>, Problem> {
        let place = path(folder.trim_end_matches('/'))?;
        let mut listing = self.store.list((!folder.is_empty()).then_some(&place));
        let mut objects = Vec::new();
        while let Some(meta) = self.timely(listing.next()).await? {
            objects.push(object(&meta.map_err(|e| problem(&e))?));
        }
        Ok(objects)
    }

    async fn timely<T>(&self, answer: impl Future<Output = T>) -> Result<T, Problem> {
        // A retry within the store has its own read timeout; both fit in twice the time.
        let late = |_| Problem::passing(format!("nothing came for {:?}", self.stall));
        tokio::time::timeout(2 * self.stall, answer).await.map_err(late)
    }
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes" | "y")
}

fn path(key: &str) -> Result<Path, Problem> {
    Path::parse(key).map_err(|e| Problem::Lasting(told(&e.to_string())))
}

fn object(meta: &ObjectMeta) -> Object {
    Object { key: meta.location.to_string(), bytes: meta.size, version: version(meta) }
}

fn version(meta: &ObjectMeta) -> Option<String> {
    // Listings are finer than headers.
    let modified = || Some(format!("modified {}", meta.last_modified.timestamp()));
    meta.e_tag.as_deref().map(plain_tag).or_else(modified)
}

fn problem(error: &Error) -> Problem {
    let text = told(&error.to_string());
    match error {
        Error::NotFound { .. } => Problem::Gone,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Problem::Refused(text),
        Error::Precondition { .. } => Problem::Changed(text),
        Error::Generic { .. } if is_lasting(error) => Problem::Lasting(text),
        Error::Generic { .. } => Problem::passing(text),
        _ => Problem::Lasting(text),
    }
}

/// Whether the request itself is at fault, so that asking again gives the same answer.
fn is_lasting(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(http) = inner.downcast_ref::<HttpError>() {
            return matches!(http.kind(), HttpErrorKind::Decode);
        }
        cause = inner.source();
    }
    // An answer with a status: 4xx that were not told apart before.
    let text = error.to_string();
    [" 400 ", " 405 ", " 411 ", " 501 "].iter().any(|status| text.contains(status))
}
