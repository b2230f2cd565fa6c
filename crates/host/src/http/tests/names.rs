//! Tests of how names are looked up.

use super::*;
use std::net::SocketAddr;
use std::sync::Condvar;

/// A resolver that answers only once it is opened, and counts its lookups.
#[derive(Clone, Default)]
struct SlowResolver(Arc<(Mutex<Lookups>, Condvar)>);

#[derive(Default)]
struct Lookups {
    running: usize,
    most: usize,
    open: bool,
}

impl SlowResolver {
    /// Returns a network with this resolver, which answers with `address` for every name.
    fn network(&self, address: SocketAddr) -> Network {
        let state = Arc::clone(&self.0);
        let resolve = move |_: &str, _| {
            let (lookups, changed) = &*state;
            let mut lookups = lookups.lock().unwrap();
            lookups.running += 1;
            lookups.most = lookups.most.max(lookups.running);
            changed.notify_all();
            let mut lookups = changed.wait_while(lookups, |lookups| !lookups.open).unwrap();
            lookups.running -= 1;
            changed.notify_all();
            Ok(vec![address])
        };
        Network { resolver: Resolver::new(resolve), ..allowing(&["*:*"]) }
    }

    /// Waits until this many lookups run.
    async fn wait_for(&self, running: usize) {
        let state = Arc::clone(&self.0);
        let wait = tokio::task::spawn_blocking(move || {
            let (lookups, changed) = &*state;
            let (lookups, waited) = changed
                .wait_timeout_while(lookups.lock().unwrap(), Duration::from_secs(10), |lookups| lookups.running != running)
                .unwrap();
            let found = lookups.running;
            drop(lookups);
            assert!(!waited.timed_out(), "{found} lookups run, not {running}");
        });
        wait.await.unwrap();
    }

    fn most(&self) -> usize {
        self.0.0.lock().unwrap().most
    }
}

/// Lookups are open while this lives. Without it, a failed test would wait for them.
struct OpenAtEnd(SlowResolver);

impl Drop for OpenAtEnd {
    fn drop(&mut self) {
        let (lookups, changed) = &*self.0.0;
        lookups.lock().unwrap_or_else(PoisonError::into_inner).open = true;
        changed.notify_all();
    }
}

/// Sends requests to another name each, lets them begin, and drops them.
async fn send_and_drop(outgoing: &mut Outgoing, round: usize) {
    let mut requests: Vec<_> =
        (0..LIMITS.in_flight).map(|number| outgoing.send(request(&format!("http://n{round}-{number}.example:80/")))).collect();
    for request in &mut requests {
        // Polls it once.
        assert!(timeout(Duration::ZERO, request).await.is_err());
    }
}

#[tokio::test]
async fn lookups_of_dropped_requests_are_limited() {
    let (listener, address, _) = listen().await;
    let address: SocketAddr = address.parse().unwrap();
    let resolver = SlowResolver::default();
    let at_end = OpenAtEnd(resolver.clone());
    let http = Http::new(resolver.network(address)).unwrap();
    let mut hostile = http.outgoing(LIMITS);
    for round in 0..50 {
        send_and_drop(&mut hostile, round).await;
    }
    // No more than the instance may have in flight.
    resolver.wait_for(LIMITS.in_flight).await;
    // Those of another instance do not wait for them.
    let (mut other, url) = (http.outgoing(LIMITS), |name: &str| format!("http://{name}.example:{}/", address.port()));
    let other_url = url("other");
    let answer = tokio::spawn(async move { get(&mut other, &other_url).await });
    resolver.wait_for(LIMITS.in_flight + 1).await;
    // All instances together have a limit too.
    let mut instances: Vec<_> = (0..10).map(|_| http.outgoing(LIMITS)).collect();
    for instance in &mut instances {
        send_and_drop(instance, 0).await;
    }
    resolver.wait_for(32).await;
    assert_eq!(resolver.most(), 32);

    drop(at_end);
    resolver.wait_for(0).await;
    let server = tokio::spawn(async move {
        for _ in 0..2 {
            let mut stream = accept(&listener).await;
            read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
        }
    });
    assert_eq!(answer.await.unwrap().unwrap(), good());
    // The instance that dropped its requests can look up names again.
    assert_eq!(get(&mut hostile, &url("last")).await.unwrap(), good());
    server.await.unwrap();
    assert_eq!(resolver.most(), 32);
}

/// A request that waits for its lookup, or for the permit for one, ends in time.
#[tokio::test]
async fn request_that_waits_for_a_lookup_times_out() {
    let resolver = SlowResolver::default();
    let _at_end = OpenAtEnd(resolver.clone());
    let http = Http::new(resolver.network("127.0.0.1:1".parse().unwrap())).unwrap();
    let mut outgoing = http.outgoing(RequestLimits { in_flight: 1, ..LIMITS });
    for _ in 0..3 {
        // From here on the clock stands, and a lookup that runs keeps it from advancing by itself.
        tokio::time::pause();
        let advance = async {
            for _ in 0..11 {
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        let code = tokio::select! {
            biased;
            answer = get(&mut outgoing, "http://name.example:80/") => answer.unwrap_err(),
            () = advance => unreachable!(),
        };
        assert!(matches!(code, ErrorCode::DestinationUnavailable), "{code:?}");
        tokio::time::resume();
        resolver.wait_for(1).await;
    }
    assert_eq!(resolver.most(), 1);
}

#[tokio::test]
async fn final_dot_is_kept_for_the_lookup_only() {
    let (listener, address, _) = listen().await;
    let address: SocketAddr = address.parse().unwrap();
    let looked_up = Arc::new(Mutex::new(Vec::new()));
    let names = Arc::clone(&looked_up);
    let resolver = Resolver::new(move |name, _| {
        names.lock().unwrap().push(name.to_owned());
        Ok(vec![address])
    });
    let port = address.port();
    // The rules have no dot.
    let network = Network { resolver, ..allowing(&[&format!("consul.example:{port}")]) };
    let mut outgoing = outgoing(network);
    let server = tokio::spawn(async move {
        let mut hosts = Vec::new();
        for requests in [2, 1] {
            let mut stream = accept(&listener).await;
            for _ in 0..requests {
                let request = read_request(&mut stream).await;
                hosts.extend(request.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned));
                stream.write_all(OK).await.unwrap();
            }
        }
        hosts
    });
    // The second request uses the connection of the first. The third needs its own: the two names
    // may have different addresses.
    let hosts = ["Consul.example.", "consul.example.", "consul.example"].map(|name| format!("{name}:{port}"));
    for at in &hosts {
        assert_eq!(get(&mut outgoing, &format!("http://{at}/")).await.unwrap(), good(), "{at}");
    }
    // `Host` is as written, like that of other clients.
    assert_eq!(server.await.unwrap(), hosts);
    assert_eq!(*looked_up.lock().unwrap(), ["consul.example.", "consul.example"]);
}
