//! TLS to the agent: the certificates to trust, and the client certificate.

use crate::config_error::ConfigError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WantsClientCert};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, InconsistentKeys, RootCertStore, SignatureScheme};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The settings of TLS connections to the agent. Default: the platform's roots, and no client
/// certificate.
///
/// The files contain PEM, with any text around the blocks. They are read once, when the [`Host`] is
/// built; the platform's roots at the first HTTPS connection. As in Consul's own tools, `ca_file` wins over `ca_path`, which is then not read. Unlike
/// there, a folder may contain other files too, and its subfolders are ignored.
///
/// An `https+insecure` connection, where the host grants one, accepts any certificate, regardless
/// of these settings. The client certificate is still presented to an agent that asks for it. That
/// shows the client's identity, but nothing of the key.
///
/// [`Host`]: crate::Host
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// File of CA certificates, at least one. A self-signed certificate of the agent is accepted
    /// too, unless it is marked as a CA's: a CA's certificate may sign others, but not serve.
    pub ca_file: Option<PathBuf>,
    /// Folder of such files, with at least one certificate in all of them together. Links to files
    /// are followed. Files without a certificate are skipped, but unreadable files are errors.
    pub ca_path: Option<PathBuf>,
    /// Whether to trust the platform's roots too, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    /// Default: only if neither `ca_file` nor `ca_path` is set. Having no roots is not an error:
    /// plain HTTP works, and for HTTPS every CA is unknown.
    pub platform_roots: Option<bool>,
    /// File of the client certificate, followed by any intermediate certificates. Requires
    /// `client_key`.
    pub client_cert: Option<PathBuf>,
    /// File of its key, which may be the same file. The key is not encrypted; PKCS#8, PKCS#1 or
    /// SEC1; RSA of 2048 to 4096 bits, ECDSA P-256 or P-384, or Ed25519. Requires `client_cert`.
    pub client_key: Option<PathBuf>,
    /// DNS name or IP address to request and verify in place of the authority's, such as
    /// `server.dc1.consul`.
    pub server_name: Option<String>,
}

/// Completes a configuration, for the first connection that needs it. Reading the platform's roots
/// takes some milliseconds, a third of the time of a program that makes one call, and plain HTTP needs
/// none.
pub(crate) type MakeConfig = Box<dyn FnOnce() -> ClientConfig + Send>;

impl Tls {
    /// Reads the files, and returns what makes the configurations (verified, insecure). The second
    /// accepts any certificate. Both present the client certificate, and neither has ALPN set.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read, or does not contain what its setting needs.
    pub(crate) fn client_configs(&self) -> Result<(MakeConfig, MakeConfig), ConfigError> {
        let provider = Arc::new(ring::default_provider());
        let identity = self.identity(&provider)?;
        let with_identity = move |builder: ConfigBuilder<ClientConfig, WantsClientCert>| match &identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::clone(identity)),
            None => builder.with_no_client_auth(),
        };
        let accept_any = Arc::new(AcceptAnyCertificate(provider.signature_verification_algorithms));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::new(format!("TLS cannot be set up: {error}")))?;
        let insecure = with_identity(builder.clone().dangerous().with_custom_certificate_verifier(accept_any));
        let roots = self.roots()?;
        let verified = move || with_identity(builder.with_root_certificates(roots()));
        Ok((Box::new(verified), Box::new(|| insecure)))
    }

    /// Returns the name that replaces the authority's.
    ///
    /// # Errors
    ///
    /// Fails if it is not a DNS name or an IP address.
    pub(crate) fn server_name(&self) -> Result<Option<ServerName<'static>>, ConfigError> {
        let Some(name) = &self.server_name else { return Ok(None) };
        ServerName::try_from(name.clone()).map(Some).map_err(|_invalid| {
            ConfigError::new(format!(
                "tls-server-name {name:?}: not a DNS name or an IP address (write it without scheme, port and brackets)"
            ))
        })
    }

    /// Reads the files with certificates to trust. Returns what adds those of the platform.
    fn roots(&self) -> Result<impl FnOnce() -> RootCertStore + Send + use<>, ConfigError> {
        let platform_roots = self.platform_roots.unwrap_or(self.ca_file.is_none() && self.ca_path.is_none());
        let given = match (&self.ca_file, &self.ca_path) {
            (Some(file), _) => PemFile::read("ca-file", file)?.chain()?,
            (None, Some(folder)) => certificates_in(folder)?,
            (None, None) => Vec::new(),
        };
        Ok(move || {
            let mut roots = RootCertStore::empty();
            if platform_roots {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            roots.add_parsable_certificates(given);
            roots
        })
    }

    /// Reads the client certificate and its key, if they are set.
    fn identity(&self, provider: &CryptoProvider) -> Result<Option<Arc<dyn ResolvesClientCert>>, ConfigError> {
        let (cert, key) = match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => (cert, key),
            (None, None) => return Ok(None),
            (Some(cert), None) => return Err(problem("client-cert", cert, "needs client-key too, the PEM file of its key")),
            (None, Some(key)) => {
                return Err(problem("client-key", key, "needs client-cert too, the PEM file of its certificate"));
            }
        };
        let chain = PemFile::read("client-cert", cert)?.chain()?;
        let key = PemFile::read("client-key", key)?;
        let signer = provider.key_provider.load_private_key(key.private_key()?).map_err(|_rejected| {
            key.problem("the key is damaged, or not RSA of 2048 to 4096 bits, ECDSA P-256, ECDSA P-384 or Ed25519")
        })?;
        let identity = CertifiedKey::new(chain, signer);
        // Other errors mean that the two cannot be compared, as with X.509 version 1, the default
        // of `openssl x509 -req`. The agent decides whether to accept such a certificate.
        if let Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) = identity.keys_match() {
            return Err(key.problem(format!(
                "the key does not belong to the first certificate in {}, which must be the client's own",
                cert.display()
            )));
        }
        Ok(Some(Arc::new(SingleCertAndKey::from(identity))))
    }
}

/// Returns the certificates of all files in `ca_path`.
///
/// # Errors
///
/// Fails if the folder or a file cannot be read, a certificate is damaged, or there is none.
fn certificates_in(folder: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let list = || std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut entries = list().map_err(|error| problem("ca-path", folder, format!("cannot be read: {error}")))?;
    // Sorted, so that the same one of several errors is always reported.
    entries.sort();
    let mut certificates = Vec::new();
    for path in &entries {
        // `is_dir` follows links, which may lead to folders too, as in mounted Kubernetes secrets.
        if !path.is_dir() {
            certificates.extend(PemFile::read("ca-path", path)?.certificates()?);
        }
    }
    if certificates.is_empty() {
        return Err(problem("ca-path", folder, "no file in this folder has a certificate (PEM, -----BEGIN CERTIFICATE-----)"));
    }
    Ok(certificates)
}

/// The content of a file that an option names, with a line break in front.
struct PemFile<'a> {
    option: &'static str,
    path: &'a Path,
    text: String,
}

impl<'a> PemFile<'a> {
    fn read(option: &'static str, path: &'a Path) -> Result<Self, ConfigError> {
        let bytes = std::fs::read(path).map_err(|error| problem(option, path, format!("cannot be read: {error}")))?;
        // Comments may be in any encoding. Some editors write a byte order mark.
        let text = format!("\n{}", String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}'));
        Ok(PemFile { option, path, text })
    }

    /// Returns the blocks in order: the label, and the text that begins with it.
    ///
    /// The parser of pki-types would not do. It skips unknown blocks, such as encrypted keys, does
    /// not report which block has an error, and quotes the text that it cannot parse.
    fn blocks(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text.split(BEGIN).skip(1).filter_map(|block| {
            let label = block.split_once("-----")?.0;
            // Text that is not a label may be anything, even a key whose line breaks were lost.
            let is_label = label.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ');
            is_label.then_some((label, block))
        })
    }

    /// Returns all certificates in the file.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let blocks = self.blocks().filter(|(label, _)| *label == "CERTIFICATE");
        let certificates = blocks.enumerate().map(|(index, (_, block))| {
            let number = index + 1;
            let der = CertificateDer::from_pem_slice(format!("{BEGIN}{block}").as_bytes())
                .map_err(|_malformed| self.problem(format!("certificate {number} {MALFORMED}")))?;
            // This parses only what a trust anchor needs, so it accepts client certificates of any
            // version too.
            RootCertStore::empty().add(der.clone()).map_err(|error| {
                self.problem(format!("certificate {number} is damaged or of a kind that is not supported: {error:?}"))
            })?;
            Ok(der)
        });
        certificates.collect()
    }

    /// Returns all certificates in the file, at least one.
    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let certificates = self.certificates()?;
        if certificates.is_empty() {
            return Err(self.problem(format!("no certificate (PEM, -----BEGIN CERTIFICATE-----); {}", self.block_counts())));
        }
        Ok(certificates)
    }

    /// Returns the first private key in the file.
    fn private_key(&self) -> Result<PrivateKeyDer<'static>, ConfigError> {
        let labels = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", ENCRYPTED];
        let Some((label, block)) = self.blocks().find(|(label, _)| labels.contains(label)) else {
            return Err(self.problem(format!(
                "no private key (PEM, -----BEGIN PRIVATE KEY-----, RSA PRIVATE KEY or EC PRIVATE KEY); {}",
                self.block_counts()
            )));
        };
        // PKCS#8 has a label for encrypted keys, the older formats have a header.
        if label == ENCRYPTED || block.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(self.problem("the key is encrypted; decrypt it first, as with `openssl pkey -in FILE -out DECRYPTED`"));
        }
        PrivateKeyDer::from_pem_slice(format!("{BEGIN}{block}").as_bytes())
            .map_err(|_malformed| self.problem(format!("the key {MALFORMED}")))
    }

    /// Lists the blocks in the file: how many of each label.
    fn block_counts(&self) -> String {
        let mut counts = BTreeMap::new();
        for (label, _) in self.blocks() {
            *counts.entry(label).or_insert(0) += 1;
        }
        let kinds: Vec<_> = counts.iter().map(|(label, count)| format!("{count} {label}")).collect();
        if kinds.is_empty() { "found no PEM block".into() } else { format!("found {}", kinds.join(", ")) }
    }

    fn problem(&self, what: impl Display) -> ConfigError {
        problem(self.option, self.path, what)
    }
}

const BEGIN: &str = "\n-----BEGIN ";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const MALFORMED: &str = "is malformed: PEM has lines of base64 between a BEGIN and an END line";

/// A verifier for `https+insecure` that accepts any certificate: expired, unknown, or for another
/// name. The plugin requests it for `validate_certs: false`, and the host grants it only for
/// authorities that its operator named.
///
/// It still verifies the signatures of the handshake: the peer has the key of its certificate.
#[derive(Debug)]
struct AcceptAnyCertificate(WebPkiSupportedAlgorithms);

type SignatureResult = Result<HandshakeSignatureValid, rustls::Error>;

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> SignatureResult {
        rustls::crypto::verify_tls12_signature(message, cert, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> SignatureResult {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Returns an error that names the option, its file, and the problem. It never shows any of a key.
fn problem(option: &str, path: &Path, what: impl Display) -> ConfigError {
    ConfigError::new(format!("{option} {}: {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use rustls::pki_types::{PrivatePkcs1KeyDer, PrivatePkcs8KeyDer};
    use rustls::server::WebPkiClientVerifier;
    use rustls::version::{TLS12, TLS13};
    use rustls::{AlertDescription, CertificateError, ClientConnection, Error, ServerConfig, ServerConnection};
    use tempfile::TempDir;

    type Ca = CertifiedIssuer<'static, KeyPair>;

    fn params(common_name: &str, names: &[&str]) -> CertificateParams {
        let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params
    }

    fn ca_params(common_name: &str, names: &[&str]) -> CertificateParams {
        let mut params = params(common_name, names);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn ca(common_name: &str) -> Ca {
        Ca::self_signed(ca_params(common_name, &[]), KeyPair::generate().unwrap()).unwrap()
    }

    /// Returns the configurations (verified, insecure).
    fn configs(tls: &Tls) -> (ClientConfig, ClientConfig) {
        let (verified, insecure) = tls.client_configs().unwrap();
        (verified(), insecure())
    }

    /// Returns a certificate that `ca` signs, and its key, both as PEM.
    fn issue(ca: &Ca, params: CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
    }

    /// Assembles a PEM block, so that no scanner for leaked keys finds one in the source.
    fn pem(label: &str, base64: &str) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", base64.trim())
    }

    /// Returns a server for each version of TLS. With `client_ca`, they require a client
    /// certificate of it.
    fn servers((cert, key): &(String, String), client_ca: Option<&Ca>) -> [Arc<ServerConfig>; 2] {
        [&TLS12, &TLS13].map(|version| {
            let provider = Arc::new(ring::default_provider());
            let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
            let builder = match client_ca {
                Some(ca) => {
                    let mut roots = RootCertStore::empty();
                    roots.add(ca.der().clone()).unwrap();
                    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build();
                    builder.with_client_cert_verifier(verifier.unwrap())
                }
                None => builder.with_no_client_auth(),
            };
            let chain = CertificateDer::pem_slice_iter(cert.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            let key = provider.key_provider.load_private_key(key).unwrap();
            // Unlike `with_single_cert`, this does not check that certificate and key match.
            Arc::new(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))))
        })
    }

    /// Does a handshake in memory. The error is that of the side that fails first.
    fn handshake(client: &ClientConfig, name: &str, server: &Arc<ServerConfig>) -> Result<ServerConnection, Error> {
        let name = ServerName::try_from(name.to_string()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client.clone()), name).unwrap();
        let mut server = ServerConnection::new(server.clone()).unwrap();
        while client.wants_write() || server.wants_write() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets()?;
            }
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets()?;
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(server)
    }

    fn write(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn trusting(ca_file: PathBuf) -> Tls {
        Tls { ca_file: Some(ca_file), ..Tls::default() }
    }

    /// Returns the message of the error, with `DIR` for the folder's path.
    fn error(tls: &Tls, folder: &TempDir) -> String {
        let error: Box<dyn std::error::Error> = tls.client_configs().err().unwrap().into();
        error.to_string().replace(folder.path().to_str().unwrap(), "DIR").replace('\\', "/")
    }

    #[test]
    fn servers_are_verified() {
        let (folder, known, unknown) = (TempDir::new().unwrap(), ca("known"), ca("unknown"));
        let tls = trusting(write(&folder, "ca.pem", known.pem()));
        let (verified, insecure) = configs(&tls);
        assert!(verified.alpn_protocols.is_empty() && insecure.alpn_protocols.is_empty());
        let mut expired = params("agent", &["localhost"]);
        expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let refused = |expected: fn(&CertificateError) -> bool, ca: &Ca, params: CertificateParams, name: &str| {
            for server in servers(&issue(ca, params), None) {
                let error = handshake(&verified, name, &server).unwrap_err();
                assert!(matches!(&error, Error::InvalidCertificate(why) if expected(why)), "{error:?}");
                handshake(&insecure, name, &server).unwrap();
            }
        };
        let agent = || params("agent", &["localhost", "127.0.0.1"]);
        refused(|why| matches!(why, CertificateError::UnknownIssuer), &unknown, agent(), "localhost");
        refused(|why| matches!(why, CertificateError::NotValidForNameContext { .. }), &known, agent(), "server.dc1.consul");
        refused(|why| matches!(why, CertificateError::NotValidForNameContext { .. }), &known, agent(), "127.0.0.2");
        refused(|why| matches!(why, CertificateError::ExpiredContext { .. }), &known, expired, "localhost");
        // Self-signed certificates, as documented for `ca_file`.
        for (params, accepted) in [(agent(), true), (ca_params("agent", &["127.0.0.1"]), false)] {
            let key = KeyPair::generate().unwrap();
            let cert = params.self_signed(&key).unwrap().pem();
            let (verified, insecure) = configs(&trusting(write(&folder, "self.pem", &cert)));
            for server in servers(&(cert, key.serialize_pem()), None) {
                assert_eq!(handshake(&verified, "127.0.0.1", &server).is_ok(), accepted);
                handshake(&insecure, "127.0.0.1", &server).unwrap();
            }
        }
        for server in servers(&issue(&known, agent()), None) {
            for name in ["localhost", "127.0.0.1"] {
                handshake(&verified, name, &server).unwrap();
                handshake(&insecure, name, &server).unwrap();
            }
        }
    }

    #[test]
    fn insecure_connection_verifies_signatures() {
        let ca = ca("ca");
        let (cert, _key) = issue(&ca, params("agent", &["localhost"]));
        let other_key = KeyPair::generate().unwrap().serialize_pem();
        let (_, insecure) = configs(&Tls::default());
        for server in servers(&(cert, other_key), None) {
            let error = handshake(&insecure, "localhost", &server).unwrap_err();
            assert_eq!(error, Error::InvalidCertificate(CertificateError::BadSignature));
        }
    }

    #[test]
    fn client_certificate_is_presented() {
        let (folder, root) = (TempDir::new().unwrap(), ca("root"));
        let between = Ca::signed_by(ca_params("between", &[]), KeyPair::generate().unwrap(), &root).unwrap();
        let (cert, key) = issue(&between, params("client", &["client.dc1.consul"]));
        let both = write(&folder, "both.pem", format!("{key}{cert}{}", between.pem()));
        let anonymous = trusting(write(&folder, "ca.pem", root.pem()));
        let tls = Tls { client_cert: Some(both.clone()), client_key: Some(both), ..anonymous.clone() };
        for server in servers(&issue(&root, params("agent", &["localhost"])), Some(&root)) {
            let (verified, insecure) = configs(&tls);
            for client in [verified, insecure] {
                let server = handshake(&client, "localhost", &server).unwrap();
                let chain: Vec<_> = CertificateDer::pem_slice_iter(cert.as_bytes()).map(Result::unwrap).collect();
                assert_eq!(server.peer_certificates(), Some([chain, vec![between.der().clone()]].concat().as_slice()));
            }
            let (verified, insecure) = configs(&anonymous);
            for client in [verified, insecure] {
                let error = handshake(&client, "localhost", &server).unwrap_err();
                assert_eq!(error, Error::NoCertificatesPresented);
            }
        }
        // A certificate of another CA, which the agent refuses.
        for server in servers(&issue(&root, params("agent", &["localhost"])), Some(&ca("other"))) {
            let error = handshake(&configs(&tls).0, "localhost", &server).unwrap_err();
            assert!(
                matches!(error, Error::InvalidCertificate(_) | Error::AlertReceived(AlertDescription::UnknownCA)),
                "{error:?}"
            );
        }
    }

    #[test]
    fn keys_of_every_kind_are_accepted() {
        let (folder, ca) = (TempDir::new().unwrap(), ca("ca"));
        let servers = servers(&issue(&ca, params("agent", &["localhost"])), Some(&ca));
        let check = |key: &KeyPair, pem: &str| {
            let cert = params("client", &["client.dc1.consul"]).signed_by(key, &*ca).unwrap().pem();
            let tls = Tls {
                client_cert: Some(write(&folder, "cert.pem", cert)),
                client_key: Some(write(&folder, "key.pem", pem)),
                ..trusting(write(&folder, "ca.pem", ca.pem()))
            };
            for server in &servers {
                handshake(&configs(&tls).0, "localhost", server).unwrap();
            }
        };
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            check(&key, &key.serialize_pem());
        }
        let rsa = pem("RSA PRIVATE KEY", RSA_KEY);
        let pkcs1 = PrivatePkcs1KeyDer::from_pem_slice(rsa.as_bytes()).unwrap();
        // PKCS#8: the version, `rsaEncryption`, and the PKCS#1 key as an octet string.
        let mut pkcs8 =
            b"\x30\x82\0\0\x02\x01\0\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\0\x04\x82\0\0".to_vec();
        pkcs8.extend(pkcs1.secret_pkcs1_der());
        for (offset, length) in [(2, pkcs8.len() - 4), (24, pkcs8.len() - 26)] {
            pkcs8[offset..offset + 2].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &rcgen::PKCS_RSA_SHA256).unwrap();
        check(&key, &key.serialize_pem());
        check(&key, &rsa);
        // The output of `openssl ecparam -genkey` and `openssl x509 -req`: parameters before SEC1,
        // and X.509 version 1.
        let tls = Tls {
            client_cert: Some(write(&folder, "cert.pem", pem("CERTIFICATE", VERSION_1))),
            client_key: Some(write(
                &folder,
                "key.pem",
                pem("EC PARAMETERS", "BggqhkjOPQMBBw==") + &pem("EC PRIVATE KEY", SEC1_KEY).replace('\n', "\r\n"),
            )),
            ..Tls::default()
        };
        assert!(configs(&tls).0.client_auth_cert_resolver.has_certs());
    }

    #[test]
    fn server_name_replaces_that_of_the_authority() {
        let (folder, ca) = (TempDir::new().unwrap(), ca("ca"));
        let named = |name: &str| Tls {
            server_name: Some(name.into()),
            ca_file: Some(write(&folder, "ca.pem", ca.pem())),
            ..Tls::default()
        };
        assert_eq!(Tls::default().server_name(), Ok(None));
        let tls = named("server.dc1.consul");
        let name = tls.server_name().unwrap().unwrap();
        for server in servers(&issue(&ca, params("agent", &["server.dc1.consul"])), None) {
            let server = handshake(&configs(&tls).0, &name.to_str(), &server).unwrap();
            assert_eq!(server.server_name(), Some("server.dc1.consul"));
        }
        for address in ["10.0.0.1", "::1"] {
            assert!(matches!(named(address).server_name(), Ok(Some(ServerName::IpAddress(_)))), "{address}");
        }
        for wrong in ["", "a b", "https://server.dc1.consul", "server.dc1.consul:8501", "[::1]", "*.consul"] {
            assert_eq!(
                named(wrong).server_name().unwrap_err().to_string(),
                format!(
                    "tls-server-name \"{wrong}\": not a DNS name or an IP address (write it without scheme, port and brackets)"
                )
            );
        }
    }

    #[test]
    fn roots_come_from_platform_or_files() {
        let folder = TempDir::new().unwrap();
        let (one, other) = (ca("one").pem(), ca("other").pem());
        let file = write(&folder, "bundle.pem", [b"# caf\xe9\n", one.as_bytes(), b"text\n", other.as_bytes()].concat());
        let platform = rustls_native_certs::load_native_certs().certs.len();
        let count = |tls: &Tls| tls.roots().unwrap()().len();
        // Some of the platform's certificates may be unusable.
        let default = count(&Tls::default());
        assert!(default <= platform);
        assert_eq!(count(&Tls { platform_roots: Some(true), ..Tls::default() }), default);
        assert_eq!(count(&Tls { platform_roots: Some(false), ..Tls::default() }), 0);
        assert_eq!(count(&trusting(file.clone())), 2);
        assert_eq!(count(&Tls { platform_roots: Some(true), ..trusting(file.clone()) }), default + 2);
        assert_eq!(count(&trusting(write(&folder, "notepad.pem", format!("\u{feff}{one}")))), 1);
        // `ca_file` wins: the folder is not read.
        let both = Tls { ca_path: Some(folder.path().join("missing")), ..trusting(file) };
        assert_eq!(count(&both), 2);
        // Without roots, every certificate is rejected.
        let no_roots = Tls { platform_roots: Some(false), ..Tls::default() };
        for server in servers(&issue(&ca("ca"), params("agent", &["localhost"])), None) {
            let error = handshake(&configs(&no_roots).0, "localhost", &server).unwrap_err();
            assert_eq!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
    }

    #[test]
    fn folder_of_certificates_is_read() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("certs");
        let tls = Tls { ca_path: Some(path.clone()), ..Tls::default() };
        let missing = std::fs::read_dir(&path).unwrap_err();
        assert_eq!(error(&tls, &folder), format!("ca-path DIR/certs: cannot be read: {missing}"));

        std::fs::create_dir(&path).unwrap();
        let none = "ca-path DIR/certs: no file in this folder has a certificate (PEM, -----BEGIN CERTIFICATE-----)";
        assert_eq!(error(&tls, &folder), none);
        let ca = ca("ca");
        std::fs::create_dir(path.join("deeper")).unwrap();
        std::fs::write(path.join("deeper/ca.pem"), ca.pem()).unwrap();
        std::fs::write(path.join("README"), b"not in UTF-8: \xff").unwrap();
        // A damaged key, which is ignored here.
        std::fs::write(path.join("key.pem"), pem("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\n\nMII")).unwrap();
        assert_eq!(error(&tls, &folder), none);

        std::fs::write(path.join("ca.pem"), ca.pem()).unwrap();
        std::fs::write(path.join("copy.pem"), ca.pem() + &ca.pem()).unwrap();
        assert_eq!(tls.roots().unwrap()().len(), 3);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("ca.pem", path.join("b85b3a2d.0")).unwrap();
            std::os::unix::fs::symlink("deeper", path.join("..data")).unwrap();
            assert_eq!(tls.roots().unwrap()().len(), 4);
        }
        for server in servers(&issue(&ca, params("agent", &["localhost"])), None) {
            handshake(&configs(&tls).0, "localhost", &server).unwrap();
        }
        #[cfg(unix)]
        {
            let dangling = path.join("dangling.0");
            std::os::unix::fs::symlink("removed.pem", &dangling).unwrap();
            let missing = std::fs::read(&dangling).unwrap_err();
            assert_eq!(error(&tls, &folder), format!("ca-path DIR/certs/dangling.0: cannot be read: {missing}"));
        }
        std::fs::write(path.join("broken.pem"), pem("CERTIFICATE", "MIIB")).unwrap();
        assert_eq!(
            error(&tls, &folder),
            "ca-path DIR/certs/broken.pem: certificate 1 is damaged or of a kind that is not supported: \
             InvalidCertificate(BadEncoding)"
        );
    }

    #[test]
    fn files_without_usable_certificates_are_rejected() {
        let folder = TempDir::new().unwrap();
        let (cert, key) = issue(&ca("ca"), params("agent", &["localhost"]));
        let missing = folder.path().join("missing.pem");
        let cause = std::fs::read(&missing).unwrap_err();
        assert_eq!(error(&trusting(missing), &folder), format!("ca-file DIR/missing.pem: cannot be read: {cause}"));
        let cause = std::fs::read(folder.path()).unwrap_err();
        assert_eq!(error(&trusting(folder.path().into()), &folder), format!("ca-file DIR: cannot be read: {cause}"));

        let no_certificate = "no certificate (PEM, -----BEGIN CERTIFICATE-----); found";
        let malformed = "is malformed: PEM has lines of base64 between a BEGIN and an END line";
        let damaged = "is damaged or of a kind that is not supported:";
        let request = params("agent", &[]).serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        for (content, expected) in [
            (String::new(), format!("{no_certificate} no PEM block")),
            ("no PEM".into(), format!("{no_certificate} no PEM block")),
            (key.clone(), format!("{no_certificate} 1 PRIVATE KEY")),
            (
                format!("{key}{}{key}", pem("TRUSTED CERTIFICATE", "MIIB")),
                format!("{no_certificate} 2 PRIVATE KEY, 1 TRUSTED CERTIFICATE"),
            ),
            (cert.clone() + &pem("CERTIFICATE", "M!IB"), format!("certificate 2 {malformed}")),
            (cert.replace("-----END", "END"), format!("certificate 1 {malformed}")),
            (cert.replace('\n', ""), format!("certificate 1 {malformed}")),
            (cert.replace('\n', "\\n"), format!("certificate 1 {malformed}")),
            (key + &cert + &pem("CERTIFICATE", "MIIB"), format!("certificate 2 {damaged} InvalidCertificate(BadEncoding)")),
            (cert.replace("-----BEGIN", "# -----BEGIN"), format!("{no_certificate} no PEM block")),
            (pem("CERTIFICATE", ""), format!("certificate 1 {damaged} InvalidCertificate(BadEncoding)")),
            // A certificate request with the label of a certificate: well-formed, but not a trust
            // anchor.
            (
                request.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
                format!("certificate 1 {damaged} InvalidCertificate(BadEncoding)"),
            ),
        ] {
            let tls = trusting(write(&folder, "ca.pem", &content));
            assert_eq!(error(&tls, &folder), format!("ca-file DIR/ca.pem: {expected}"), "{content}");
        }
    }

    #[test]
    fn unusable_client_certificates_are_rejected() {
        let (folder, ca) = (TempDir::new().unwrap(), ca("ca"));
        let (cert, key) = issue(&ca, params("client", &["client.dc1.consul"]));
        let path = |name: &str, content: &str| Some(write(&folder, name, content));
        let tls = |cert, key| error(&Tls { client_cert: cert, client_key: key, ..Tls::default() }, &folder);
        assert_eq!(
            tls(path("cert.pem", &cert), None),
            "client-cert DIR/cert.pem: needs client-key too, the PEM file of its key"
        );
        assert_eq!(
            tls(None, path("key.pem", &key)),
            "client-key DIR/key.pem: needs client-cert too, the PEM file of its certificate"
        );
        let missing = folder.path().join("missing.pem");
        let cause = std::fs::read(&missing).unwrap_err();
        assert_eq!(tls(path("cert.pem", &cert), Some(missing)), format!("client-key DIR/missing.pem: cannot be read: {cause}"));
        assert_eq!(
            tls(path("cert.pem", &key), path("key.pem", &key)),
            "client-cert DIR/cert.pem: no certificate (PEM, -----BEGIN CERTIFICATE-----); found 1 PRIVATE KEY"
        );

        let with_key = |content: &str| {
            let text = tls(path("cert.pem", &cert), path("key.pem", content));
            // The message shows no part of the keys that `content` has below.
            for secret in key.lines().chain(SEC1_KEY.lines()).filter(|line| !line.is_empty() && !line.starts_with("-----")) {
                assert!(!text.contains(secret.get(..8).unwrap_or(secret)), "{text}");
            }
            assert!(text.len() < 200, "{text}");
            text.strip_prefix("client-key DIR/key.pem: ").unwrap().to_string()
        };
        let no_key = "no private key (PEM, -----BEGIN PRIVATE KEY-----, RSA PRIVATE KEY or EC PRIVATE KEY); found";
        assert_eq!(with_key(""), format!("{no_key} no PEM block"));
        assert_eq!(with_key(&cert), format!("{no_key} 1 CERTIFICATE"));
        assert_eq!(with_key(&pem("OPENSSH PRIVATE KEY", "MIIB")), format!("{no_key} 1 OPENSSH PRIVATE KEY"));
        // Without the line breaks, or without the dashes.
        assert_eq!(with_key(&key.replacen("-----", "", 2)), format!("{no_key} no PEM block"));
        assert_eq!(with_key(&key.replacen("KEY-----", "KEY", 1)), format!("{no_key} no PEM block"));
        let malformed = "the key is malformed: PEM has lines of base64 between a BEGIN and an END line";
        assert_eq!(with_key(&key.replace('\n', "")), malformed);
        assert_eq!(with_key(&key.replace("-----END", "")), malformed);
        assert_eq!(with_key(&key.replacen('M', "*", 1)), malformed);

        let encrypted = "the key is encrypted; decrypt it first, as with `openssl pkey -in FILE -out DECRYPTED`";
        assert_eq!(with_key(&pem("ENCRYPTED PRIVATE KEY", "MIIB")), encrypted);
        let header = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIB";
        assert_eq!(with_key(&pem("RSA PRIVATE KEY", header)), encrypted);
        assert_eq!(with_key(&pem("EC PRIVATE KEY", header)), encrypted);

        let unsupported = "the key is damaged, or not RSA of 2048 to 4096 bits, ECDSA P-256, ECDSA P-384 or Ed25519";
        assert_eq!(with_key(&pem("PRIVATE KEY", "MIIB")), unsupported);
        assert_eq!(with_key(&pem("RSA PRIVATE KEY", SEC1_KEY)), unsupported);
        let mismatch = "the key does not belong to the first certificate in DIR/cert.pem, which must be the client's own";
        assert_eq!(with_key(&KeyPair::generate().unwrap().serialize_pem()), mismatch);
        assert_eq!(with_key(&pem("EC PRIVATE KEY", SEC1_KEY)), mismatch);
        let backwards = path("cert.pem", &(ca.pem() + &cert));
        assert_eq!(tls(backwards, path("key.pem", &key)), format!("client-key DIR/key.pem: {mismatch}"));
    }

    /// PKCS#1, 2048 bits. rcgen does not make RSA keys.
    const RSA_KEY: &str = "
MIIEowIBAAKCAQEAwrGOj0Vbf3aF6posLq1lGnU75WDoHPhKO0LsyvW5C1+udfYEy3Zdv12vmQtVvz2G0r+tFX6FoPQL5jXkSbOyeTdQoITSSfHbhWSe7DNJ
WL09XY4wL68XgbA3m9A2SdKARmloMQ87u/IyABl38inu280arCCwOQcteYLwxm8pxjxqc1Rdc8T3NPtc3qt4bZtEFYoXd0wjuJyFYbSYaPIJC4H6yXOoBfbc
8L51GOPckVUgj5AKZCpuR5xTsrD/A4wRRFk/N8X7H/qkSNObQ4ewVVCGHYfa+X3JcTbg14e9eGRORD/r9DE61hb3ll7fMxWbPWydG6YlnmgikJcK4CkYVQID
AQABAoIBABI0N2PqhIJfwug7Z5+qq04kwYeyPqm8xnYRjSHyBU4MsXuKmAqtI9lZiWpqLqeNuW45qVWd6aExyG4LQm/ouyqN0z5bBO2QjWnEzX5A0l4XfaYi
fhtrR+uiniR1vKm84q0SvID/z2JEpEuxle9A3/pRzGllOgzvAJ/AsEIhkTqdb+cCqQEc/A6GbFVQgXyi3YLvfVLw75MHC4yC9WuKR0SJMq1yc9qyCKxGvT7m
q15QbCPtGhJMPidE7boQ2hskHY5vYK+NUePHT96jyZdPn5krHo50PsbS2X+DhlMbNUQHjMqY5Mv/u245n3ngzpFosTXKw0x8QSuIkHAoFv1Y9FkCgYEA/2Wp
zfEPou4yUtVgMNWZfcWHd++3ZCrkwXxvdDcFN/7A2K2m8kupaUFtaW/kmtBqBbQLNTqru0LZoROq/3A8AzdWQkDHBrSDHs0iS6WSngd0GPQl5ihfUEiFQOPs
sy7SXocqJJW3mhlFEA1kHtV6lEr8wUbIp2cFzBPoLG++WZ0CgYEAwyc12wA9G7sP+5T450VGAEQKghm6Q3TAQNPr+zjcut+4VzY1M+4sbrtSHCVUWH3Skruh
/kO6cVLRVz6L1bGyQ8YuZmci0qjkSuHcz/EgbfYkC0D5YOGNlks2Fgd9fPoGCu3s33fv5Dr5as8vRH9vJ/j3O9s75yYGwMehUQlYOBkCgYEAshCypGiHK2UB
5yjn6QR0APHAssmKxqb1WUWl+5QE6naPBEOGm3ZPRpicbR/bdmkLErDmA5XFeElyrNCmr3QUE3X4iTbazPz8UnRZjf6By/aMZn2LEv5g/fuiFI0VUhS6DbgV
lO5h1Wn68ec0QB89WLkzopn0emrk6tWSUbETOS0CgYAl7LjKloFJolC403qLdyrjYlWoctd/xHCYKJbze1lp95AbYq10KhT4b+7FCXwatlj1qwEQKJlS7IVC
LyV9ocrC4QCjZeeeiLPU2Y/P2Uw0EmFuznGoIi0hx/v6y/nXD7+c4B/oTaaQ8+UEnL7S0PEJE5j4SOKbSQiG7kSrOuWqAQKBgAi0ZNEc7MvcBVXLNiqp278H
GkHYeBhlTc5R/VMyzY7VwKin8HSJFwPulracmPiCaIsuBuD/7uggP4CmSBt8y+C3LwGAp5C7/9RmI8u5ZnIJ3BIxC10v3GkeSZvTZF1IQ9g5Vgvdrmi04jBh
/NLsKA348iLTgOaJ0YBf+T4Q0f4/";

    /// SEC1, P-256.
    const SEC1_KEY: &str = "
MHcCAQEEIEhHZqhX+pU8pNIBZaPT5dJ2Cxeq38xJ+F7L1yia6bWRoAoGCCqGSM49AwEHoUQDQgAEhKhGzM0tpwMOzmpLAH96HjxazQhD6iK2TedeB0A5BPFD
2R8UGbQPrdTREKckDEKpzFM7oDq98oy9d3Us4VM2Vw==";

    /// A certificate of X.509 version 1 for [`SEC1_KEY`].
    const VERSION_1: &str = "
MIIBHzCBxQIUaWisD3lW+hkpy9J8vT/fQdgOEGUwCgYIKoZIzj0EAwIwETEPMA0GA1UEAwwGY2xpZW50MCAXDTI2MTEyMzIxMzIyM1oYDzIxMjYxMDMwMjEz
MjIzWjARMQ8wDQYDVQQDDAZjbGllbnQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASEqEbMzS2nAw7OaksAf3oePFrNCEPqIrZN514HQDkE8UPZHxQZtA+t
1NEQpyQMQqnMUzugOr3yjL13dSzhUzZXMAoGCCqGSM49BAMCA0kAMEYCIQDiBgVRfU6lHa+iMxnQFXQ6X23gYqw57Bs3+wV7bakYnwIhAKSmHFeQyzZgvRBj
4964a7rl4N8V0aUU7BlJPmJsyFTV";
}
