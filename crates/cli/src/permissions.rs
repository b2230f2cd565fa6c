//! Flags, environment and configuration file to the permissions of the host.
//!
//! A flag takes precedence over the environment, and the environment over the file.

use consul_session::error::Error;
use consul_session::options::Scheme;
use consul_session_args::{self as cli, Invocation, Program, Source};
use consul_session_host::{Authority, Builder, Host, Rule, Tls, Token};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The flags with a value: name, placeholder of the value, and help.
pub const SETTINGS: &[(&str, &str, &str)] = &[
    (
        "allow",
        "RULE",
        "Where the component may connect, in addition to `host` and CONSUL_HTTP_ADDR: NAME:PORT, *.SUFFIX:PORT, \
         10.0.0.0/8:8500-8510, [::1]:8500, unix:///PATH. May be repeated",
    ),
    ("insecure", "RULE", "Where validate_certs=false is granted: certificates are not verified. May be repeated"),
    ("config", "FILE", "Configuration file in TOML, with the same and more; see docs/cli.md"),
    ("ca-file", "FILE", "CA certificates (PEM) to trust in place of the platform's"),
    ("ca-path", "FOLDER", "Folder of such files"),
    ("client-cert", "FILE", "Client certificate (PEM), with --client-key"),
    ("client-key", "FILE", "Its private key (PEM)"),
    ("tls-server-name", "NAME", "Name to verify the agent's certificate against, in place of `host`"),
    ("token-file", "FILE", "ACL token that the host adds to allowed requests; the component never sees it"),
    ("limit", "NAME=VALUE", "What the component may use: memory=256MiB, compute=10s, time=15m, ... May be repeated"),
];

/// The environment variables that are used where such a flag is not given, each with its help.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("CONSUL_HTTP_TOKEN_FILE", "as --token-file"),
    ("CONSUL_CACERT", "as --ca-file"),
    ("CONSUL_CAPATH", "as --ca-path"),
    ("CONSUL_CLIENT_CERT", "as --client-cert"),
    ("CONSUL_CLIENT_KEY", "as --client-key"),
    ("CONSUL_TLS_SERVER_NAME", "as --tls-server-name"),
    ("CONSUL_SESSION_PLUGIN", "the component's file"),
    ("CONSUL_SESSION_CACHE", "folder of compiled components; empty for none. Default: the user's cache folder"),
];

const ADDRESS: &str = "CONSUL_HTTP_ADDR";
const TOKEN: &str = "CONSUL_HTTP_TOKEN";

/// Returns an environment variable. An empty one is unset, as for Consul's tools.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns an environment variable that becomes an option of the component. The token and a Unix
/// socket do not: the host uses them itself.
pub fn visible(name: &str) -> Option<String> {
    variable(name).filter(|value| name != TOKEN && !(name == ADDRESS && value.starts_with(Program::UNIX)))
}

/// Returns a builder with the permissions that the command line and the environment grant. An
/// agent's address that only the options on standard input name grants nothing.
pub fn builder(invocation: &mut Invocation) -> Result<Builder, Error> {
    let mut builder = Host::builder();
    // The environment is about another agent than the program's own one.
    let own_agent = invocation.flags.contains(&Program::OWN_AGENT);
    let variable = |name: &str| variable(name).filter(|_| !own_agent);
    let flag_value = |flag: &str| invocation.setting(flag).next_back().map(str::to_owned);
    let given = |flag: &str, name: &str| flag_value(flag).or_else(|| variable(name));
    // A CA file takes precedence over a CA folder, but not one from the environment over a folder
    // from a flag.
    let ca_given = flag_value("ca-file").or(flag_value("ca-path")).is_some();
    let ca = |flag: &str, name: &str| flag_value(flag).or_else(|| variable(name).filter(|_| !ca_given)).map(PathBuf::from);
    builder = builder.tls(Tls {
        ca_file: ca("ca-file", "CONSUL_CACERT"),
        ca_path: ca("ca-path", "CONSUL_CAPATH"),
        client_cert: given("client-cert", "CONSUL_CLIENT_CERT").map(PathBuf::from),
        client_key: given("client-key", "CONSUL_CLIENT_KEY").map(PathBuf::from),
        server_name: given("tls-server-name", "CONSUL_TLS_SERVER_NAME"),
        platform_roots: None,
    });
    let mut allowed: Vec<Rule> = invocation.setting("allow").map(|text| parsed("allow", text)).collect::<Result<_, _>>()?;
    let over_http = operator_scheme(invocation)? == Scheme::Http;
    let (authority, socket, named) = agent(invocation)?;
    let written: Rule = parsed("host", &authority.to_string())?;
    let target = match &socket {
        Some(path) => parsed("host", &format!("{}{}", Program::UNIX, path.display()))?,
        None => written.clone(),
    };
    if named {
        allowed.push(target.clone());
    }
    if let Some(token) = token(invocation, &variable)? {
        // A token is for an authority, and a socket's rule has none.
        let socket = (socket.is_some() && allowed.contains(&target)).then_some(&written);
        for rule in allowed.iter().chain(socket) {
            let (rule, token) = (rule.clone(), token.clone());
            builder = if over_http { builder.token_over_http(rule, token) } else { builder.token(rule, token) };
        }
        // The operator gave a token, so no request is to be an anonymous one.
        builder = builder.token_required(true);
    }
    if let Some(path) = socket {
        builder = builder.unix_socket(authority, path);
    }
    for rule in allowed {
        builder = builder.allow(rule);
    }
    for text in invocation.setting("insecure") {
        builder = builder.insecure(parsed("insecure", text)?);
    }
    for file in invocation.setting("config") {
        builder = builder.config_file(file).map_err(|error| Error::invalid("config", error.to_string()))?;
    }
    for text in invocation.setting("limit") {
        let invalid = |reason: String| Error::invalid("limit", format!("--limit: {reason}"));
        let pair = text.split_once('=');
        let (name, value) = pair.ok_or_else(|| invalid(format!("`{text}` is not NAME=VALUE, such as memory=256MiB")))?;
        builder = builder.limit(name, value).map_err(|error| invalid(error.to_string()))?;
    }
    Ok(match cache() {
        Some(folder) => builder.cache(folder),
        None => builder,
    })
}

/// Returns the agent's authority as the component writes it, its Unix socket if it has one, and
/// whether the command line or the environment names it.
fn agent(invocation: &mut Invocation) -> Result<(Authority, Option<PathBuf>, bool), Error> {
    let named = !["host", "port"].iter().any(|name| invocation.source(name) == Some(Source::Input));
    let address = match (&invocation.socket, &invocation.options.host) {
        (Some(address), _) => Some(address.clone()),
        (None, None) => variable(ADDRESS).filter(|address| address.starts_with(Program::UNIX)),
        (None, Some(_)) => None,
    };
    let mut socket = None;
    if let Some((host, path)) = address.as_ref().and_then(|address| Some((address, address.strip_prefix(Program::UNIX)?))) {
        // The environment's port and scheme belong to a TCP address.
        for option in ["port", "scheme"] {
            if invocation.source(option) == Some(Source::Environment) {
                invocation.forget(option)?;
            }
        }
        if let Some(option) = ["port", "scheme"].into_iter().find(|option| invocation.is_given(option)) {
            return Err(Error::invalid(option, format!("option `{option}` cannot be combined with a Unix socket ({host})")));
        }
        if !path.starts_with('/') {
            let expected = "the path of a Unix socket is absolute, as in unix:///run/consul.sock";
            return Err(Error::invalid("host", format!("option `host`: `{host}`: {expected}")));
        }
        socket = Some(path.into());
    }
    let options = invocation.options.clone().resolve();
    let authority = format!("{}:{}", options.host.as_str(), options.port).parse::<Authority>();
    Ok((authority.map_err(|error| Error::invalid("host", format!("option `host`: {error}")))?, socket, named))
}

/// Returns the scheme that the command line and the environment choose. Standard input has no say:
/// it may ask for TLS, but not take it from the token. Nor has the component, or a record of a file.
fn operator_scheme(invocation: &Invocation) -> Result<Scheme, Error> {
    let mut operator = invocation.clone();
    if operator.source("scheme") == Some(Source::Input) {
        operator.forget("scheme")?;
        cli::read_environment(&mut operator, &visible)?;
    }
    Ok(operator.options.resolve().scheme)
}

/// Returns the token that the host adds: `--token-file`, else `CONSUL_HTTP_TOKEN_FILE`, else
/// `CONSUL_HTTP_TOKEN`, in the order of Consul's tools.
fn token(invocation: &Invocation, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Token>, Error> {
    let read = |option: &str, file: &str| {
        Token::read(Path::new(file)).map(Some).map_err(|error| Error::invalid(option, error.to_string()))
    };
    if let Some(file) = invocation.setting("token-file").next_back() {
        return read("token-file", file);
    }
    match (variable("CONSUL_HTTP_TOKEN_FILE"), variable(TOKEN)) {
        (Some(file), _) => read("CONSUL_HTTP_TOKEN_FILE", &file),
        (None, Some(token)) => token.parse().map(Some).map_err(|_| {
            Error::invalid(
                TOKEN,
                format!("invalid value for {TOKEN}: a line break or a control character cannot be sent in a header"),
            )
        }),
        (None, None) => Ok(None),
    }
}

/// Returns the folder of compiled components, or none to keep none.
fn cache() -> Option<PathBuf> {
    match std::env::var_os("CONSUL_SESSION_CACHE") {
        Some(folder) if folder.is_empty() => None,
        Some(folder) => Some(folder.into()),
        None => Some(dirs::cache_dir()?.join("consul-session")),
    }
}

/// Parses the value of a flag.
fn parsed<T: FromStr<Err: std::fmt::Display>>(flag: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: T::Err| Error::invalid(flag, format!("--{flag}: {error}")))
}
