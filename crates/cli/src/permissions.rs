//! From flags, environment and configuration file to what the host grants.
//!
//! What is typed counts for more than the environment, and that for more than the file.

use consul_session::error::Error;
use consul_session_args::{Invocation, Program, Source};
use consul_session_host::{Authority, Builder, Host, Rule, Tls, Token};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The flags with a value: name, what the value is, and help.
pub const SETTINGS: &[(&str, &str, &str)] = &[
    (
        "allow",
        "RULE",
        "Where the component may connect, beside what `host` and CONSUL_HTTP_ADDR name: NAME:PORT, *.SUFFIX:PORT, \
         10.0.0.0/8:8500-8510, [::1]:8500, unix:///PATH. May be repeated",
    ),
    ("insecure", "RULE", "Where validate_certs=false is granted: certificates are not verified. May be repeated"),
    ("config", "FILE", "Configuration file in TOML, with the same and more; see the README"),
    ("ca-file", "FILE", "CA certificates (PEM) to trust in place of the platform's"),
    ("ca-path", "FOLDER", "Folder of such files"),
    ("client-cert", "FILE", "Client certificate (PEM), with --client-key"),
    ("client-key", "FILE", "Its private key (PEM)"),
    ("tls-server-name", "NAME", "Name to verify the agent's certificate against, in place of `host`"),
    ("token-file", "FILE", "ACL token that the host adds to allowed requests; the component never sees it"),
    ("limit", "NAME=VALUE", "What the component may use: memory=256MiB, compute=10s, time=15m, ... May be repeated"),
];

/// The environment variables that count where no such flag is typed, each with its help.
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
/// An environment variable; an empty one is none, as for Consul's tools.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The environment as the component's options may see it: the token and a Unix socket are the host's own business.
pub fn visible(name: &str) -> Option<String> {
    variable(name).filter(|value| name != TOKEN && !(name == ADDRESS && value.starts_with(Program::UNIX)))
}

/// The host that may do what was typed. Where the address of the agent was named by nobody but the options on standard input,
/// nothing is granted by it.
pub fn builder(invocation: &mut Invocation) -> Result<Builder, Error> {
    let mut builder = Host::builder();
    // An agent of one's own has nothing to do with the environment's.
    let own_agent = invocation.flags.contains(&Program::OWN_AGENT);
    let variable = |name: &str| variable(name).filter(|_| !own_agent);
    let typed = |flag: &str| invocation.setting(flag).next_back().map(str::to_owned);
    let given = |flag: &str, name: &str| typed(flag).or_else(|| variable(name));
    // Of CAs a file counts for more than a folder; one in the environment not for more than what was typed.
    let trusted = typed("ca-file").or(typed("ca-path")).is_some();
    let ca = |flag: &str, name: &str| typed(flag).or_else(|| variable(name).filter(|_| !trusted)).map(PathBuf::from);
    builder = builder.tls(Tls {
        ca_file: ca("ca-file", "CONSUL_CACERT"),
        ca_path: ca("ca-path", "CONSUL_CAPATH"),
        client_cert: given("client-cert", "CONSUL_CLIENT_CERT").map(PathBuf::from),
        client_key: given("client-key", "CONSUL_CLIENT_KEY").map(PathBuf::from),
        server_name: given("tls-server-name", "CONSUL_TLS_SERVER_NAME"),
        platform_roots: None,
    });
    let mut allowed: Vec<Rule> = invocation.setting("allow").map(|text| parsed("allow", text)).collect::<Result<_, _>>()?;
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
        // The rule of a socket has no authority in it, for which a token is.
        let socket = (socket.is_some() && allowed.contains(&target)).then_some(&written);
        for rule in allowed.iter().chain(socket) {
            builder = builder.token(rule.clone(), token.clone());
        }
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
        let refused = |reason: String| Error::invalid("limit", format!("--limit: {reason}"));
        let pair = text.split_once('=');
        let (name, value) = pair.ok_or_else(|| refused(format!("`{text}` is not NAME=VALUE, such as memory=256MiB")))?;
        builder = builder.limit(name, value).map_err(|error| refused(error.to_string()))?;
    }
    Ok(match cache() {
        Some(folder) => builder.cache(folder),
        None => builder,
    })
}

/// The agent's authority as the component will write it, the Unix socket behind it, and whether the one who typed the command named
/// it.
fn agent(invocation: &mut Invocation) -> Result<(Authority, Option<PathBuf>, bool), Error> {
    let named = !["host", "port"].iter().any(|name| invocation.source(name) == Some(Source::Input));
    let address = match (&invocation.socket, &invocation.options.host) {
        (Some(address), _) => Some(address.clone()),
        (None, None) => variable(ADDRESS).filter(|address| address.starts_with(Program::UNIX)),
        (None, Some(_)) => None,
    };
    let mut socket = None;
    if let Some((host, path)) = address.as_ref().and_then(|address| Some((address, address.strip_prefix(Program::UNIX)?))) {
        // What the environment says beside it belongs to an address.
        for option in ["port", "scheme"] {
            if invocation.source(option) == Some(Source::Environment) {
                invocation.forget(option)?;
            }
        }
        if let Some(option) = ["port", "scheme"].into_iter().find(|option| invocation.is_given(option)) {
            return Err(Error::invalid(option, format!("option `{option}` cannot be combined with a Unix socket ({host})")));
        }
        if !path.starts_with('/') {
            let wanted = "the path of a Unix socket is absolute, as in unix:///run/consul.sock";
            return Err(Error::invalid("host", format!("option `host`: `{host}`: {wanted}")));
        }
        socket = Some(path.into());
    }
    let options = invocation.options.clone().resolve();
    let authority = format!("{}:{}", options.host.as_str(), options.port).parse::<Authority>();
    Ok((authority.map_err(|error| Error::invalid("host", format!("option `host`: {error}")))?, socket, named))
}

/// The token that the host adds: `--token-file`, else `CONSUL_HTTP_TOKEN_FILE`, else `CONSUL_HTTP_TOKEN`: in the order of Consul's
/// tools.
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

/// Where compiled components are kept.
fn cache() -> Option<PathBuf> {
    match std::env::var_os("CONSUL_SESSION_CACHE") {
        Some(folder) if folder.is_empty() => None,
        Some(folder) => Some(folder.into()),
        None => Some(dirs::cache_dir()?.join("consul-session")),
    }
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(flag: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: T::Err| Error::invalid(flag, format!("--{flag}: {error}")))
}
