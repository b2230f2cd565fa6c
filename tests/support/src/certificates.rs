//! Valid and invalid certificates for tests, from private CAs.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ten days and a half, so that it still rounds to ten days hours later.
const TEN_DAYS: Duration = Duration::from_secs(252 * 3600);

/// The kind of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Valid for `localhost`, `127.0.0.1` and `::1`, and signed by the trusted CA.
    Good,
    /// Valid for `server.dc1.consul` only, as `consul tls cert create -server` makes them but
    /// without `localhost`.
    Server,
    /// Expired ten days and a half ago.
    Expired,
    /// Valid in ten days and a half.
    NotYetValid,
    /// Signed by another CA.
    OtherCa,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A private certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Creates a CA with a unique name, as `consul tls ca create` makes them.
    pub fn new() -> Result<Authority> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let mut params = CertificateParams::new([])?;
        let name = format!("Test CA {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Authority(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Returns the certificate of the CA.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for servers and clients, and writes `NAME.pem` and `NAME-key.pem` into
    /// the folder.
    pub fn issue(&self, certificate: Certificate, folder: &Path, name: &str) -> Result<Pair> {
        let names: &[&str] = match certificate {
            Certificate::Server => &["server.dc1.consul"],
            _ => &["localhost", "127.0.0.1", "::1"],
        };
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        match certificate {
            Certificate::Expired => params.not_after = date_time_ymd(1970, 1, 1) + (now - TEN_DAYS),
            Certificate::NotYetValid => params.not_before = date_time_ymd(1970, 1, 1) + (now + TEN_DAYS),
            Certificate::Good | Certificate::Server | Certificate::OtherCa => {}
        }
        let key = KeyPair::generate()?;
        let signed = match certificate {
            Certificate::OtherCa => params.signed_by(&key, &Authority::new()?.0)?,
            _ => params.signed_by(&key, &self.0)?,
        };
        let pair = Pair { cert: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}-key.pem")) };
        std::fs::write(&pair.cert, signed.pem())?;
        std::fs::write(&pair.key, key.serialize_pem())?;
        Ok(pair)
    }
}
