//! Where a manifest's paths may lead.

use std::io;
use std::path::{Component, Path, PathBuf};

/// The folders that may be read and written: the manifest's own, its `allowed_roots`, and what was
/// given on the command line.
///
/// Paths are resolved through symbolic links before they are compared, so neither `..` nor a link
/// leads out. The check is made when a path is resolved, not again when it is opened: it protects
/// against a manifest, not against someone who changes links at the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// The manifest's folder, without links; relative paths start here.
    base: PathBuf,
    /// All roots without links; the first is `base`.
    allowed: Vec<PathBuf>,
}

/// Why a path may not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// It leads out of the allowed roots.
    #[error("the path {text:?} leads to {}, outside of what this manifest may open", target.display())]
    Outside {
        /// The path as given.
        text: String,
        /// Where it leads.
        target: PathBuf,
    },
    /// It is no path at all.
    #[error("the path {text:?} {problem}")]
    Malformed {
        /// The path as given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The system refused to look it up.
    #[error("cannot look up the path {text:?}")]
    LookUp {
        /// The path as given.
        text: String,
        /// What the system said.
        source: io::Error,
    },
}

impl PathError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Outside { .. } => Some(
                "move it below the manifest's folder, or name a folder above it in allowed_roots"
                    .to_owned(),
            ),
            Self::Malformed { .. } => {
                Some("relative paths start at the manifest's folder".to_owned())
            }
            Self::LookUp { .. } => None,
        }
    }

    /// Whether the path is wrong, as opposed to the disk.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        !matches!(self, Self::LookUp { .. })
    }
}

impl Roots {
    /// Roots with one folder, at which relative paths start.
    ///
    /// # Errors
    /// If the folder cannot be looked up.
    pub fn new(base: &Path) -> Result<Self, PathError> {
        let base = if base.as_os_str().is_empty() { Path::new(".") } else { base };
        let look_up = |source| PathError::LookUp { text: base.display().to_string(), source };
        let absolute = std::path::absolute(base).map_err(look_up)?;
        let base = through_links(&absolute, &base.display().to_string())?;
        Ok(Self { allowed: vec![base.clone()], base })
    }

    /// Allows one more folder or file: a relative path starts at the manifest's folder. It need
    /// not exist yet.
    ///
    /// # Errors
    /// If it is malformed or cannot be looked up.
    pub fn allow(&mut self, path: &Path) -> Result<(), PathError> {
        let text = path.display().to_string();
        check_text(&text)?;
        let root = through_links(&self.base.join(path), &text)?;
        if !self.allowed.contains(&root) {
            self.allowed.push(root);
        }
        Ok(())
    }

    /// The manifest's folder, without symbolic links.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// All allowed folders, without symbolic links.
    #[must_use]
    pub fn allowed(&self) -> &[PathBuf] {
        &self.allowed
    }

    /// The file or folder that `text` names, without symbolic links. It need not exist yet.
    ///
    /// # Errors
    /// If it leads outside, is malformed, or cannot be looked up.
    pub fn resolve(&self, text: &str) -> Result<PathBuf, PathError> {
        check_text(text)?;
        self.inside(&self.base.join(text), text)
    }

    /// Like [`Roots::resolve`], for a glob: the part before the first of `* ? [ {` is resolved, the
    /// rest is kept. What the glob finds must go through [`Roots::admit`].
    ///
    /// # Errors
    /// If the fixed part leads outside, or the rest holds `..`.
    pub fn resolve_glob(&self, text: &str) -> Result<PathBuf, PathError> {
        check_text(text)?;
        let is_pattern = |part: &Component| {
            part.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[{".contains(byte))
        };
        let parts: Vec<Component> = Path::new(text).components().collect();
        let fixed = parts.iter().position(is_pattern).unwrap_or(parts.len());
        if parts[fixed..].contains(&Component::ParentDir) {
            let problem = "has `..` after a wildcard";
            return Err(PathError::Malformed { text: text.to_owned(), problem });
        }
        let mut resolved =
            self.inside(&self.base.join(parts[..fixed].iter().collect::<PathBuf>()), text)?;
        resolved.extend(&parts[fixed..]);
        Ok(resolved)
    }

    /// Checks a path that was found by listing a folder or a glob, through its symbolic links.
    ///
    /// # Errors
    /// If it leads outside, or cannot be looked up.
    pub fn admit(&self, path: &Path) -> Result<PathBuf, PathError> {
        let text = path.display().to_string();
        self.inside(&self.base.join(path), &text)
    }

    fn inside(&self, path: &Path, text: &str) -> Result<PathBuf, PathError> {
        let target = through_links(path, text)?;
        if self.allowed.iter().any(|root| target.starts_with(root)) {
            Ok(target)
        } else {
            Err(PathError::Outside { text: text.to_owned(), target })
        }
    }
}

fn check_text(text: &str) -> Result<(), PathError> {
    let problem = if text.is_empty() {
        "is empty"
    } else if text.contains('\0') {
        "holds a NUL byte"
    } else {
        return Ok(());
    };
    Err(PathError::Malformed { text: text.to_owned(), problem })
}

/// Follows the links of the part of an absolute `path` that exists; the rest may not hold `..`,
/// which would mean something else once it exists.
fn through_links(path: &Path, text: &str) -> Result<PathBuf, PathError> {
    let mut existing = path.to_owned();
    let mut rest = Vec::new();
    loop {
        match existing.canonicalize() {
            Ok(mut target) => {
                target.extend(rest.iter().rev());
                return Ok(target);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A link whose target is missing exists itself: its target is what would be written.
                if let Ok(target) = existing.read_link() {
                    let parent = existing.parent().unwrap_or(Path::new("/")).to_owned();
                    let mut followed = parent.join(target);
                    followed.extend(rest.iter().rev());
                    let problem = "is a link whose target does not exist";
                    return Err(PathError::Malformed {
                        text: format!("{text} -> {}", followed.display()),
                        problem,
                    });
                }
                let (Some(name), Some(parent)) = (existing.file_name(), existing.parent()) else {
                    let problem = "has `..` below a folder that does not exist";
                    return Err(PathError::Malformed { text: text.to_owned(), problem });
                };
                rest.push(name.to_owned());
                existing = parent.to_owned();
            }
            Err(source) => return Err(PathError::LookUp { text: text.to_owned(), source }),
        }
    }
}
