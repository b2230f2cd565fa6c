//! Flags, environment and configuration file to the permissions of the host.
//!
//! A flag takes precedence over the environment, and the environment over the file.

use consul_session::error::Error;
use consul_session::options::{Options, Scheme};
use consul_session_args::{self as cli, Invocation, Program, Source};
use consul_session_host::{Authority, Builder, Credentials, Host, Rule, Tls, Token};
use std::path::{Path, PathBuf};
use std::str::FromStr;

const ADDRESS: &str = "CONSUL_HTTP_ADDR";
const TOKEN: &str = "CONSUL_HTTP_TOKEN";
const AUTH: &str = "CONSUL_HTTP_AUTH";

/// Returns an environment variable. An empty one is unset, as for Consul's tools.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns an environment variable that becomes an option of the component. Secrets and a Unix
/// socket do not: the host uses them itself.
pub fn visible(name: &str) -> Option<String> {
    variable(name).filter(|value| name != TOKEN && name != AUTH && !(name == ADDRESS && value.starts_with(Program::UNIX)))
}

/// Returns a builder with the permissions that the command line and the environment grant. An
/// agent's address that only the options on standard input name grants nothing.
pub fn builder(invocation: &mut Invocation) -> Result<Builder, Error> {
    let mut builder = Host::builder();
    // The environment is about another agent than the program's own one.
    let flags = invocation.flags.clone();
    let variable = |name: &str| variable(name).filter(|_| !flags.dev);
    let path = |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| variable(name).map(PathBuf::from));
    // A CA file takes precedence over a CA folder, but not one from the environment over a folder
    // from a flag.
    let ca_given = flags.ca_file.is_some() || flags.ca_path.is_some();
    let ca = |flag: &Option<PathBuf>, name: &str| if ca_given { flag.clone() } else { path(flag, name) };
    builder = builder.tls(Tls {
        ca_file: ca(&flags.ca_file, "CONSUL_CACERT"),
        ca_path: ca(&flags.ca_path, "CONSUL_CAPATH"),
        client_cert: path(&flags.client_cert, "CONSUL_CLIENT_CERT"),
        client_key: path(&flags.client_key, "CONSUL_CLIENT_KEY"),
        server_name: flags.tls_server_name.clone().or_else(|| variable("CONSUL_TLS_SERVER_NAME")),
        platform_roots: None,
    });
    let mut allowed: Vec<Rule> = flags.allow.iter().map(|text| parsed("allow", text)).collect::<Result<_, _>>()?;
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
    // Secrets are for authorities, and a socket's rule has none.
    let of_socket = (socket.is_some() && allowed.contains(&target)).then_some(&written);
    let rules: Vec<Rule> = allowed.iter().chain(of_socket).cloned().collect();
    if let Some(text) = variable(AUTH) {
        let credentials = text.parse::<Credentials>().map_err(|error| Error::invalid(AUTH, format!("{AUTH}: {error}")))?;
        for rule in rules.clone() {
            let credentials = credentials.clone();
            builder = match over_http {
                true => builder.basic_auth_over_http(rule, credentials),
                false => builder.basic_auth(rule, credentials),
            };
        }
    }
    if let Some(token) = token(flags.token_file.as_deref(), &variable)? {
        for rule in rules {
            let token = token.clone();
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
    for text in &flags.insecure {
        builder = builder.insecure(parsed("insecure", text)?);
    }
    for file in &flags.config {
        builder = builder.config_file(file).map_err(|error| Error::invalid("config", error.to_string()))?;
    }
    for text in &flags.limit {
        let invalid = |reason: String| Error::invalid("limit", format!("--limit: {reason}"));
        let pair = text.split_once('=');
        let (name, value) = pair.ok_or_else(|| invalid(format!("`{text}` is not NAME=VALUE, such as memory=256MiB")))?;
        builder = builder.limit(name, value).map_err(|error| invalid(error.to_string()))?;
    }
    Ok(match cache() {
        Some(folder) => builder.cache(folder),
        // Each start compiles, and most are for one call.
        None => builder.optimize(false),
    })
}

/// Returns the agent's authority as the component writes it, its Unix socket if it has one, and
/// whether the command line or the environment names it.
fn agent(invocation: &mut Invocation) -> Result<(Authority, Option<PathBuf>, bool), Error> {
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
    let authority = authority(&invocation.options)?;
    let from_input = |name| invocation.source(name) == Some(Source::Input);
    let named = if from_input("host") || from_input("port") {
        // What the operator names too is allowed, wherever it comes from.
        let mut operator = of_operator(invocation, &["host", "port"])?;
        operator.socket = invocation.socket.clone().filter(|_| !from_input("host"));
        let is_named = ["host", "port"].iter().any(|option| operator.is_given(option));
        socket.is_none() && operator.socket.is_none() && is_named && self::authority(&operator.options)? == authority
    } else {
        true
    };
    Ok((authority, socket, named))
}

/// Returns the authority of these options, as the component writes it.
fn authority(options: &Options) -> Result<Authority, Error> {
    let options = options.clone().resolve();
    let authority = format!("{}:{}", options.host.as_str(), options.port).parse::<Authority>();
    authority.map_err(|error| Error::invalid("host", format!("option `host`: {error}")))
}

/// Returns the scheme that the command line and the environment choose. Standard input has no say:
/// it may ask for TLS, but not take it from the token. Nor has the component, or a record of a file.
fn operator_scheme(invocation: &Invocation) -> Result<Scheme, Error> {
    Ok(of_operator(invocation, &["scheme"])?.options.resolve().scheme)
}

/// Returns the invocation with these options as the command line and the environment give them,
/// whatever standard input says.
fn of_operator(invocation: &Invocation, options: &[&str]) -> Result<Invocation, Error> {
    let mut operator = invocation.clone();
    let is_from_input = |option: &&&str| invocation.source(option) == Some(Source::Input);
    let from_input: Vec<_> = options.iter().filter(is_from_input).collect();
    for option in &from_input {
        operator.forget(option)?;
    }
    if !from_input.is_empty() {
        cli::read_environment(&mut operator, &visible)?;
    }
    Ok(operator)
}

/// Returns the token that the host adds: `--token-file`, else `CONSUL_HTTP_TOKEN_FILE`, else
/// `CONSUL_HTTP_TOKEN`, in the order of Consul's tools.
fn token(file: Option<&Path>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Token>, Error> {
    let read =
        |option: &str, file: &Path| Token::read(file).map(Some).map_err(|error| Error::invalid(option, error.to_string()));
    if let Some(file) = file {
        return read("token-file", file);
    }
    match (variable("CONSUL_HTTP_TOKEN_FILE"), variable(TOKEN)) {
        (Some(file), _) => read("CONSUL_HTTP_TOKEN_FILE", Path::new(&file)),
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
