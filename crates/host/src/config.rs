//! The operator's configuration file, in TOML.
//!
//! ```toml
//! allow = ["consul.example:8501", "*.consul.example:8501", "10.0.0.0/8:8500-8510", "unix:///run/consul.sock"]
//! deny = ["169.254.0.0/16:*"]
//! insecure = ["localhost:8501"]
//! locks = false
//!
//! [tls]
//! ca_file = "ca.pem"                  # or ca_path, a folder
//! platform_roots = false
//! client_cert = "client.pem"
//! client_key = "client-key.pem"
//! server_name = "server.dc1.consul"
//!
//! [[token]]
//! authority = "consul.example:8501"
//! file = "/run/secrets/consul-token"
//! scheme = "https"                    # "http": over plain HTTP too
//!
//! [[basic_auth]]                      # for a proxy; the file holds USER:PASSWORD
//! authority = "consul.example:8501"
//! file = "/run/secrets/consul-proxy"
//! scheme = "https"
//!
//! [unix_sockets]
//! "localhost:8500" = "/run/consul.sock"
//!
//! [limits]
//! memory = "256MiB"
//! time = "15m"
//! ```
//!
//! Every key is optional. An unknown key is an error. Relative paths start at the file's own
//! folder.

use crate::Builder;
use crate::config_error::ConfigError;
use crate::http::{Credentials, Tls, Token};
use crate::policy::Rule;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConfigFile {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    insecure: Vec<Rule>,
    locks: bool,
    tls: TlsTable,
    token: Vec<SecretTable>,
    basic_auth: Vec<SecretTable>,
    unix_sockets: BTreeMap<String, PathBuf>,
    limits: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TlsTable {
    ca_file: Option<PathBuf>,
    ca_path: Option<PathBuf>,
    platform_roots: Option<bool>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    server_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretTable {
    authority: Rule,
    file: PathBuf,
    #[serde(default)]
    scheme: SecretScheme,
}

/// The least protected scheme over which a secret is sent.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SecretScheme {
    Http,
    #[default]
    Https,
}

/// The value of a limit: `"256MiB"` or `100`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a limit is a string such as \"256MiB\" or \"15m\", or a whole number")]
enum Value {
    Text(String),
    Number(u64),
}

impl Builder {
    /// Adds the settings of a configuration file.
    ///
    /// The file is TOML; `config.rs` and `consul-session --help` show its keys. Rules, secrets and
    /// sockets are added. A TLS setting that is already set stays, and a limit is replaced.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is not valid TOML, or has an unknown key or an invalid
    /// value, and if the file of a token or a password cannot be read.
    pub fn config_file(mut self, path: impl AsRef<Path>) -> Result<Builder, ConfigError> {
        let path = path.as_ref();
        let invalid = |reason: String| ConfigError::new(format!("{}: {reason}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| invalid(format!("cannot be read: {error}")))?;
        let file: ConfigFile = toml::from_str(&text).map_err(|error| {
            let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
            let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            invalid(format!("{line}{}", redact_string(error.message())))
        })?;
        // An absolute path, since the rules for sockets have absolute paths.
        let folder = std::path::absolute(path).ok().and_then(|path| Some(path.parent()?.to_owned())).unwrap_or_default();
        let resolve = |path: PathBuf| folder.join(path);
        for rule in file.allow {
            self = self.allow(rule);
        }
        for rule in file.deny {
            self = self.deny(rule);
        }
        for rule in file.insecure {
            self = self.insecure(rule);
        }
        self.network.locks |= file.locks;
        let tls = &mut self.network.tls;
        // Either of the two replaces both from the file.
        let trusted = tls.ca_file.is_some() || tls.ca_path.is_some();
        *tls = Tls {
            ca_file: tls.ca_file.take().or(file.tls.ca_file.filter(|_| !trusted).map(resolve)),
            ca_path: tls.ca_path.take().or(file.tls.ca_path.filter(|_| !trusted).map(resolve)),
            platform_roots: tls.platform_roots.or(file.tls.platform_roots),
            client_cert: tls.client_cert.take().or(file.tls.client_cert.map(resolve)),
            client_key: tls.client_key.take().or(file.tls.client_key.map(resolve)),
            server_name: tls.server_name.take().or(file.tls.server_name),
        };
        for table in file.token {
            let token = Token::read(&resolve(table.file)).map_err(|error| invalid(error.to_string()))?;
            self = match table.scheme {
                SecretScheme::Http => self.token_over_http(table.authority, token),
                SecretScheme::Https => self.token(table.authority, token),
            };
        }
        for table in file.basic_auth {
            let credentials = Credentials::read(&resolve(table.file)).map_err(|error| invalid(error.to_string()))?;
            self = match table.scheme {
                SecretScheme::Http => self.basic_auth_over_http(table.authority, credentials),
                SecretScheme::Https => self.basic_auth(table.authority, credentials),
            };
        }
        for (authority, socket) in file.unix_sockets {
            let authority = authority.parse().map_err(|error| invalid(format!("unix_sockets: {error}")))?;
            self = self.unix_socket(authority, resolve(socket));
        }
        for (name, value) in file.limits {
            let value = match value {
                Value::Text(text) => text,
                Value::Number(number) => number.to_string(),
            };
            self.limits.set(&name, &value).map_err(|error| invalid(error.to_string()))?;
        }
        Ok(self)
    }
}

/// Removes the string that a message of the TOML parser quotes: it may be a token in the wrong
/// place.
fn redact_string(message: &str) -> String {
    match message.split_once("string \"").and_then(|(before, rest)| Some((before, rest.rsplit_once("\", expected ")?.1))) {
        Some((before, expected)) => format!("{before}string, expected {expected}"),
        None => message.to_owned(),
    }
}

impl Token {
    /// Reads a token from a file that contains nothing else, except for white space at its end.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or its content is not a valid token. The error names the
    /// file, and never shows its content.
    pub fn read(file: &Path) -> Result<Token, ConfigError> {
        read_secret(file, "token")
    }
}

impl Credentials {
    /// Reads a user and a password from a file that contains `USER:PASSWORD` and nothing else,
    /// except for white space at its end.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or its content is not valid. The error names the file, and
    /// never shows its content.
    pub fn read(file: &Path) -> Result<Credentials, ConfigError> {
        read_secret(file, "password")
    }
}

/// Reads a secret, which `kind` names in errors.
fn read_secret<T: FromStr<Err = ConfigError>>(file: &Path, kind: &str) -> Result<T, ConfigError> {
    let invalid = |reason: String| ConfigError::new(format!("the {kind}'s file {} {reason}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| invalid(format!("cannot be read: {error}")))?;
    text.trim_end().parse().map_err(|error| invalid(format!("holds no {kind}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::http::SecretKind;
    use bytesize::ByteSize;
    use std::time::Duration;
    use tempfile::TempDir;
    use test_support::TOKEN;

    const PASSWORD: &str = "tr0ub4dor:&3";

    /// Returns a folder with this configuration file, and files with a token and a password.
    fn folder(config: &str) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("host.toml"), config).unwrap();
        std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
        std::fs::write(folder.path().join("password"), format!("ops:{PASSWORD}\n")).unwrap();
        folder
    }

    fn read_into(builder: Builder, config: &str) -> Result<(Builder, TempDir), String> {
        let folder = folder(config);
        match builder.config_file(folder.path().join("host.toml")) {
            Ok(builder) => Ok((builder, folder)),
            Err(error) => {
                // The name of the folder differs each time.
                let error = error.to_string().replace(folder.path().to_str().unwrap(), "FOLDER");
                assert!(!error.contains(TOKEN) && !error.contains(PASSWORD), "{error}");
                Err(error)
            }
        }
    }

    fn read(config: &str) -> Result<(Builder, TempDir), String> {
        read_into(Builder::default(), config)
    }

    fn allows(builder: &Builder, authority: &str) -> bool {
        builder.network.policy.check(&authority.parse().unwrap()).is_ok()
    }

    #[test]
    fn every_key_is_read() {
        let config = r#"
            allow = ["consul.example:8501", "10.0.0.0/8:8500-8510", "unix:///run/consul.sock"]
            deny = ["10.1.0.0/16:*"]
            insecure = ["localhost:8501"]
            locks = true

            [tls]
            ca_file = "ca.pem"
            ca_path = "/etc/ca"
            platform_roots = false
            client_cert = "certs/client.pem"
            client_key = "../client-key.pem"
            server_name = "server.dc1.consul"

            [[token]]
            authority = "consul.example:8501"
            file = "token"

            [[token]]
            authority = "consul.example:8500"
            file = "token"
            scheme = "http"

            [[token]]
            authority = "*:*"
            file = "token"
            scheme = "https"

            [[basic_auth]]
            authority = "consul.example:8501"
            file = "password"

            [[basic_auth]]
            authority = "consul.example:8500"
            file = "password"
            scheme = "http"

            [unix_sockets]
            "localhost:8500" = "/run/consul.sock"
            "[::1]:8500" = "consul.sock"

            [limits]
            memory = "64MiB"
            time = "15s"
            compute = 5
            instances = 7
        "#;
        let (builder, folder) = read(config).unwrap();
        let resolve = |path: &str| folder.path().join(path);
        assert!(allows(&builder, "consul.example:8501") && allows(&builder, "10.0.0.1:8500"));
        assert!(!allows(&builder, "10.1.0.1:8500") && !allows(&builder, "consul.example:22"));
        let network = &builder.network;
        assert!(network.policy.check_socket(Path::new("/run/consul.sock")).is_ok());
        assert_eq!(network.insecure, ["localhost:8501".parse().unwrap()]);
        assert!(network.locks);
        let Tls { ca_file, ca_path, platform_roots, client_cert, client_key, server_name } = network.tls.clone();
        assert_eq!((ca_file, ca_path, platform_roots), (Some(resolve("ca.pem")), Some("/etc/ca".into()), Some(false)));
        assert_eq!((client_cert, client_key), (Some(resolve("certs/client.pem")), Some(resolve("../client-key.pem"))));
        assert_eq!(server_name.as_deref(), Some("server.dc1.consul"));
        let secrets: Vec<_> = network.secrets.iter().collect();
        let secrets = secrets.iter().map(|rule| (rule.secret.kind(), rule.authorities.to_string(), rule.over_http));
        assert_eq!(
            secrets.collect::<Vec<_>>(),
            [
                (SecretKind::Token, "consul.example:8501".into(), false),
                (SecretKind::Token, "consul.example:8500".into(), true),
                (SecretKind::Token, "*:*".into(), false),
                (SecretKind::Password, "consul.example:8501".into(), false),
                (SecretKind::Password, "consul.example:8500".into(), true),
            ]
        );
        let sockets: Vec<_> = network.sockets.iter().map(|(at, path)| (at.to_string(), path.clone())).collect();
        let expected = [("[::1]:8500".into(), resolve("consul.sock")), ("localhost:8500".into(), "/run/consul.sock".into())];
        assert_eq!(sockets, expected);
        let expected = Limits {
            memory: ByteSize::mib(64),
            time: Duration::from_secs(15),
            compute: Duration::from_secs(5),
            instances: 7,
            ..Limits::default()
        };
        assert_eq!(builder.limits, expected);
        let shown = format!("{builder:?}");
        assert!(!shown.contains(TOKEN) && !shown.contains(PASSWORD));
    }

    #[test]
    fn empty_file_changes_nothing() {
        let (builder, _folder) = read("# nothing\n").unwrap();
        assert_eq!(format!("{builder:?}"), format!("{:?}", Builder::default()));
    }

    #[test]
    fn invalid_content_is_reported_with_its_line() {
        let top =
            "expected one of `allow`, `deny`, `insecure`, `locks`, `tls`, `token`, `basic_auth`, `unix_sockets`, `limits`";
        let tls = "expected one of `ca_file`, `ca_path`, `platform_roots`, `client_cert`, `client_key`, `server_name`";
        let limit = "a limit is a string such as \"256MiB\" or \"15m\", or a whole number";
        let token = format!("token = {TOKEN:?}\n");
        for (config, expected) in [
            // Unknown keys, in each table.
            ("alow = []\n", &*format!("line 1: unknown field `alow`, {top}")),
            ("\n[tls]\n\nca-file = 'x'\n", &format!("line 4: unknown field `ca-file`, {tls}")),
            (
                "[[token]]\nauthority = '*:*'\ntoken = 'x'\n",
                "line 3: unknown field `token`, expected one of `authority`, `file`, `scheme`",
            ),
            ("[logging]\nlevel = 1\n", &format!("line 1: unknown field `logging`, {top}")),
            // Missing and duplicate keys.
            ("\n[[token]]\nfile = 'token'\n", "line 2: missing field `authority`"),
            ("\n[[token]]\nauthority = '*:*'\n", "line 2: missing field `file`"),
            ("allow = []\nallow = []\n", "line 2: duplicate key"),
            // Values of another type.
            ("\nallow = 'localhost:8500'\n", "line 2: invalid type: string, expected a sequence"),
            ("allow = [\n  'localhost:8500',\n  8500\n]\n", "line 3: invalid type: integer `8500`, expected a string"),
            ("[tls]\nplatform_roots = 'no'\n", "line 2: invalid type: string, expected a boolean"),
            ("locks = 'yes'\n", "line 1: invalid type: string, expected a boolean"),
            (
                "[[token]]\nauthority = '*:*'\nfile = 'token'\nscheme = 'tls'\n",
                "line 4: unknown variant `tls`, expected `http` or `https`",
            ),
            ("tls = 'ca.pem'\n", "line 1: invalid type: string, expected struct TlsTable"),
            ("[limits]\n\nmemory = 1.5\n", &format!("line 3: {limit}")),
            ("[limits]\ntable = -1\n", &format!("line 2: {limit}")),
            ("[limits]\ntable = []\n", &format!("line 2: {limit}")),
            // A token in the wrong place.
            (&token, "line 1: invalid type: string, expected a sequence"),
            // Invalid TOML.
            ("allow = [\n", "line 1: unclosed array, expected `]`"),
            // Valid TOML whose values the host rejects.
            ("\nallow = ['localhost']\n", "line 2: `localhost` is not a valid rule: the port is missing"),
            ("[unix_sockets]\nlocalhost = '/x'\n", "unix_sockets: `localhost` is not a valid authority: the port is missing"),
            ("[limits]\nmemory = 'much'\n", "limit `memory`: `much` is not a size above 0, such as 512KiB, 256MiB or 1GiB"),
            ("[limits]\nfuel = 5\n", "there is no limit `fuel`; known are memory, table, "),
            ("[[token]]\nauthority = '*:*'\nfile = 'x'\n", "the token's file FOLDER/x cannot be read: "),
            ("[[basic_auth]]\nauthority = '*:*'\nfile = 'x'\n", "the password's file FOLDER/x cannot be read: "),
            (
                "[[basic_auth]]\nauthority = '*:*'\npassword = 'x'\n",
                "line 3: unknown field `password`, expected one of `authority`, `file`, `scheme`",
            ),
            (&format!("basic_auth = 'ops:{PASSWORD}'\n"), "line 1: invalid type: string, expected a sequence"),
        ] {
            let error = read(config).err().unwrap_or_else(|| panic!("{config:?} is accepted"));
            assert!(error.starts_with(&format!("FOLDER/host.toml: {expected}")), "{config:?}: {error}");
        }
    }

    #[test]
    fn unreadable_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none.toml");
        let error = Builder::default().config_file(&missing).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: cannot be read: ", missing.display())), "{error}");
        std::fs::write(&missing, b"allow = ['\xff']").unwrap();
        let error = Builder::default().config_file(&missing).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: cannot be read: ", missing.display())), "{error}");
    }

    #[test]
    fn paths_are_absolute_for_a_relative_file() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let name = Path::new(folder.path().file_name().unwrap()).join("host.toml");
        std::fs::write(&name, "[tls]\nca_file = 'ca.pem'\n[unix_sockets]\n'localhost:8500' = 'consul.sock'\n").unwrap();
        let network = Builder::default().config_file(&name).unwrap().network;
        let resolve = |path: &str| std::env::current_dir().unwrap().join(&name).with_file_name(path);
        assert_eq!(network.tls.ca_file, Some(resolve("ca.pem")));
        assert_eq!(network.sockets[0].1, resolve("consul.sock"));
    }

    #[test]
    fn earlier_settings_win_and_rules_add_up() {
        let earlier = Tls {
            ca_path: Some("/flag/ca".into()),
            client_cert: Some("/flag/cert.pem".into()),
            platform_roots: Some(true),
            server_name: Some("flag".into()),
            ..Tls::default()
        };
        let before = Builder::default()
            .allow("flag:1".parse().unwrap())
            .tls(earlier)
            .token("*:*".parse().unwrap(), "flag".parse().unwrap())
            .unix_socket("localhost:8500".parse().unwrap(), "/flag.sock")
            .limit("table", "5")
            .unwrap()
            .limit("handles", "5")
            .unwrap();
        let config = "
            allow = ['file:1']
            tls = {ca_file = 'ca.pem', ca_path = 'ca', client_cert = 'c', client_key = 'k', platform_roots = false, server_name = 'f'}
            token = [{authority = 'file:1', file = 'token'}]
            unix_sockets = {'localhost:8500' = '/file.sock'}
            limits = {table = 6}
        ";
        let (builder, folder) = read_into(before, config).unwrap();
        assert!(allows(&builder, "flag:1") && allows(&builder, "file:1"));
        let Tls { ca_file, ca_path, platform_roots, client_cert, client_key, server_name } = builder.network.tls.clone();
        assert_eq!((ca_file, ca_path), (None, Some("/flag/ca".into())));
        assert_eq!((platform_roots, server_name.as_deref()), (Some(true), Some("flag")));
        assert_eq!((client_cert, client_key), (Some("/flag/cert.pem".into()), Some(folder.path().join("k"))));
        // The first match counts.
        assert_eq!(builder.network.secrets[0].authorities, "*:*".parse().unwrap());
        assert_eq!(builder.network.sockets[0].1, Path::new("/flag.sock"));
        assert_eq!((builder.limits.table, builder.limits.handles), (6, 5));
        // A limit that is set after the file replaces the file's.
        assert_eq!(builder.limit("table", "7").unwrap().limits.table, 7);
    }

    #[test]
    fn token_is_read_without_its_line_break_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        for content in [TOKEN.to_owned(), format!("{TOKEN}\n"), format!("{TOKEN}\r\n"), format!("{TOKEN} \n\n")] {
            std::fs::write(&file, &content).unwrap();
            let token = Token::read(&file).unwrap();
            assert_eq!(format!("{token:?}"), "Token(…)", "{content:?}");
        }
        for content in [String::new(), "\n".into(), format!("{TOKEN}\n{TOKEN}"), format!("{TOKEN}\u{1}x")] {
            std::fs::write(&file, &content).unwrap();
            let error = Token::read(&file).unwrap_err().to_string();
            assert!(error.starts_with(&format!("the token's file {} holds no token: ", file.display())), "{error}");
            assert!(!error.contains(&TOKEN[..8]), "{error}");
        }
        std::fs::write(&file, [TOKEN.as_bytes(), b"\xff"].concat()).unwrap();
        let error = Token::read(&file).unwrap_err().to_string();
        assert!(error.contains("cannot be read") && !error.contains(&TOKEN[..8]), "{error}");
    }

    #[test]
    fn password_is_read_without_its_line_break_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let pair = format!("ops:{PASSWORD}");
        for content in [pair.clone(), format!("{pair}\n"), format!("{pair}\r\n")] {
            std::fs::write(&file, &content).unwrap();
            let credentials = Credentials::read(&file).unwrap();
            assert_eq!((credentials.pair(), format!("{credentials:?}").as_str()), (pair.as_bytes(), "Credentials(…)"));
        }
        for content in [String::new(), "\n".into(), format!("{pair}\n{pair}")] {
            std::fs::write(&file, &content).unwrap();
            let error = Credentials::read(&file).unwrap_err().to_string();
            assert!(error.starts_with(&format!("the password's file {} holds no password: ", file.display())), "{error}");
            assert!(!error.contains(&PASSWORD[..6]), "{error}");
        }
    }
}
