//! TLS: certificates, loaded and reloaded.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{ClientAuth, Tls};

/// The current TLS configuration, which may be replaced while connections run on the old one.
pub struct TlsReloader {
    settings: Tls,
    current: RwLock<Arc<ServerConfig>>,
    seen: RwLock<Vec<Option<SystemTime>>>,
}

fn told(path: &str) -> impl Fn(rustls_pki_types::pem::Error) -> io::Error + '_ {
    move |e| io::Error::other(format!("{path}: {e}"))
}

fn load(settings: &Tls) -> io::Result<Arc<ServerConfig>> {
    let certificates = |path: &str| -> io::Result<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_file_iter(path)
            .map_err(told(path))?
            .map(|c| c.map_err(told(path)))
            .collect()
    };
    let chain = certificates(&settings.cert)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(told(&settings.key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = if settings.client_auth == ClientAuth::None {
        builder.with_no_client_auth()
    } else {
        let mut roots = rustls::RootCertStore::empty();
        for authority in certificates(&settings.client_ca)? {
            roots.add(authority).map_err(io::Error::other)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = match settings.client_auth {
            ClientAuth::Required => verifier,
            _ => verifier.allow_unauthenticated(),
        };
        builder.with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
    };
    let config = builder.with_single_cert(chain, key);
    config
        .map(Arc::new)
        .map_err(|e| io::Error::other(format!("{} with {}: {e}", settings.cert, settings.key)))
}

impl TlsReloader {
    /// Loads the certificates.
    ///
    /// # Errors
    /// A file that cannot be read, or a key that does not fit.
    pub fn new(settings: &Tls) -> io::Result<TlsReloader> {
        TlsReloader::with(settings, load)
    }

    fn with(
        settings: &Tls,
        load: impl FnOnce(&Tls) -> io::Result<Arc<ServerConfig>>,
    ) -> io::Result<TlsReloader> {
        // Before they are read: what changes meanwhile is seen.
        let seen = times(settings);
        Ok(TlsReloader {
            settings: settings.clone(),
            current: RwLock::new(load(settings)?),
            seen: RwLock::new(seen),
        })
    }

    /// What new connections use.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current
            .read()
            .expect("a panic aborts the process")
            .clone()
    }

    /// Loads the files again; what does not work leaves the old in place and is logged.
    pub fn reload(&self) {
        match load(&self.settings) {
            Ok(config) => {
                *self.current.write().expect("a panic aborts the process") = config;
                tracing::info!("TLS certificates reloaded");
            }
            Err(e) => {
                tracing::error!(error = %e, "TLS certificates not reloaded, the old ones stay")
            }
        }
    }

    /// Reads the files because somebody asks.
    pub fn read_again(&self) {
        self.changed();
        self.reload();
    }

    /// Whether a file changed since the last call.
    pub fn changed(&self) -> bool {
        let now = times(&self.settings);
        let mut seen = self.seen.write().expect("a panic aborts the process");
        let changed = *seen != now;
        *seen = now;
        changed
    }

    /// The files, for messages.
    pub fn files(&self) -> Vec<PathBuf> {
        vec![
            self.settings.cert.clone().into(),
            self.settings.key.clone().into(),
        ]
    }
}

/// When the files were last changed.
fn times(settings: &Tls) -> Vec<Option<SystemTime>> {
    let files = [&settings.cert, &settings.key, &settings.client_ca];
    files.map(|f| modified(Path::new(f))).to_vec()
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(dir: &Path) -> Tls {
        let pair =
            rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).expect("a pair");
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&cert, pair.cert.pem()).expect("written");
        std::fs::write(&key, pair.signing_key.serialize_pem()).expect("written");
        Tls {
            cert: cert.display().to_string(),
            key: key.display().to_string(),
            ..Tls::default()
        }
    }

    #[test]
    fn a_bad_new_pair_leaves_the_old_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = write_pair(dir.path());
        let reloader = TlsReloader::new(&settings).expect("a good pair");
        let first = reloader.current();
        std::fs::write(&settings.cert, "no certificate").expect("written");
        assert!(reloader.changed() && !reloader.changed());
        reloader.reload();
        assert!(Arc::ptr_eq(&first, &reloader.current()));
        write_pair(dir.path());
        reloader.reload();
        assert!(!Arc::ptr_eq(&first, &reloader.current()));
    }

    #[test]
    fn a_change_while_the_files_are_read_is_seen() {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = write_pair(dir.path());
        let replaced_behind = |settings: &Tls| {
            let read = load(settings);
            write_pair(dir.path());
            let cert = std::fs::File::options().append(true).open(&settings.cert);
            let later = SystemTime::now() + std::time::Duration::from_secs(5);
            cert.and_then(|f| f.set_modified(later))
                .expect("a later time");
            read
        };
        let reloader = TlsReloader::with(&settings, replaced_behind).expect("a good pair");
        assert!(reloader.changed() && !reloader.changed());
    }

    #[test]
    fn a_missing_file_is_named() {
        let settings = Tls {
            cert: "/nowhere/cert.pem".into(),
            ..Tls::default()
        };
        let error = TlsReloader::new(&settings).err().expect("refused");
        assert!(error.to_string().contains("/nowhere/cert.pem"), "{error}");
    }
}
