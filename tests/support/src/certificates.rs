//! Certificates as good and as bad as a test needs them, of CAs that nobody else trusts.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// And a half, so that it is ten days for hours to come.
const TEN_DAYS: Duration = Duration::from_secs(252 * 3600);

/// What is special about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Nothing: for `localhost`, `127.0.0.1` and `::1`, of the CA that is trusted.
    Good,
    /// It is for `server.dc1.consul` alone, as those that `consul tls cert create -server` makes, less `localhost`.
    Server,
    /// It expired ten days and a half ago.
    Expired,
    /// It will be valid in ten days and a half.
    NotYetValid,
    /// Another CA signed it.
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
    /// A new one, with a name of its own, as those that `consul tls ca create` makes.
    pub fn new() -> Result<Authority> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let mut params = CertificateParams::new([])?;
        let name = format!("Test CA {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Authority(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Its certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Makes a certificate, for a server and for a client, and writes `NAME.pem` and `NAME-key.pem` into the folder.
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
