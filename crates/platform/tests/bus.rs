//! Units over D-Bus, beside a stand-in for bus and service manager: this machine's PID 1 is no systemd.
//!
//! The stand-in speaks D-Bus on a socket of its own, and answers what systemd answers to the calls that are made.

use futures_util::StreamExt;
use platform::services::bus::{Bus, BusError, is_active};
use std::collections::BTreeMap;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use zbus::{Connection, Guid, Message, ObjectPath, Variant};

/// No look without an event within this.
const NEVER: Duration = Duration::from_secs(60);
const UNIT: &str = "org.freedesktop.systemd1.Unit";

#[derive(Default)]
struct Said {
    /// `ActiveState` by object path.
    states: BTreeMap<String, String>,
    /// Methods called.
    calls: Vec<String>,
    /// Who has subscribed.
    peers: Vec<Connection>,
}

struct Stand {
    said: Arc<Mutex<Said>>,
    address: String,
    _root: tempfile::TempDir,
}

fn path_of(unit: &str) -> String {
    let escaped: String = unit
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("_{b:02x}") })
        .collect();
    format!("/org/freedesktop/systemd1/unit/{escaped}")
}

impl Stand {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let socket = root.path().join("bus");
        let listener = UnixListener::bind(&socket).expect("bound");
        let said = Arc::<Mutex<Said>>::default();
        let shared = Arc::clone(&said);
        let runtime = tokio::runtime::Handle::current();
        // Ends with the test's process.
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                runtime.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { said, address: format!("unix:path={}", socket.display()), _root: root }
    }

    fn set(&self, unit: &str, state: &str) {
        self.said.lock().expect("lock").states.insert(path_of(unit), state.into());
    }

    fn peers(&self) -> Vec<Connection> {
        self.said.lock().expect("lock").peers.clone()
    }

    /// As systemd does it: all subscribers hear of what changed, of every interface of the unit.
    async fn change(&self, unit: &str, state: &str) {
        self.set(unit, state);
        for peer in self.peers() {
            for interface in ["org.freedesktop.systemd1.Service", UNIT] {
                let changed = BTreeMap::from([("ActiveState", Variant::from(state))]);
                let body = (interface, changed, Vec::<String>::new());
                let path = path_of(unit);
                let to: Option<&str> = None;
                let properties = "org.freedesktop.DBus.Properties";
                let _ = peer.emit_signal(to, path.as_str(), properties, "PropertiesChanged", &body).await;
            }
        }
    }

    fn count(&self, call: &str) -> usize {
        self.said.lock().expect("lock").calls.iter().filter(|it| *it == call).count()
    }
}

async fn serve(stream: UnixStream, said: Arc<Mutex<Said>>) {
    let builder = zbus::connection::Builder::unix_stream(stream).server(Guid::generate()).p2p();
    let Ok(mut messages) = builder.build_message_stream().await else { return };
    let connection = Connection::from(&messages);
    while let Some(Ok(message)) = messages.next().await {
        if message.message_type() == zbus::message::Type::MethodCall {
            answer(&connection, &message, &said).await;
        }
    }
}

async fn answer(connection: &Connection, message: &Message, said: &Mutex<Said>) {
    let header = message.header();
    let member = header.member().map(ToString::to_string).unwrap_or_default();
    let path = header.path().map(ToString::to_string).unwrap_or_default();
    said.lock().expect("lock").calls.push(member.clone());
    let sent = match member.as_str() {
        "Hello" => connection.reply(&header, &":1.7").await,
        "AddMatch" | "RemoveMatch" => connection.reply(&header, &()).await,
        "Subscribe" => {
            said.lock().expect("lock").peers.push(connection.clone());
            connection.reply(&header, &()).await
        }
        "LoadUnit" => {
            let body = message.body();
            let unit: &str = body.deserialize().expect("a name");
            let path = path_of(unit);
            connection.reply(&header, &ObjectPath::try_from(path.as_str()).expect("a path")).await
        }
        "Get" => {
            let state = said.lock().expect("lock").states.get(&path).cloned().unwrap_or_else(|| "inactive".into());
            connection.reply(&header, &Variant::from(state.as_str())).await
        }
        other => connection.reply_error(&header, "org.freedesktop.DBus.Error.UnknownMethod", &other).await,
    };
    // A client that is gone is found by the next read.
    let _ = sent;
}

#[tokio::test]
async fn a_service_that_fails_and_returns_is_noticed_by_an_event() {
    let stand = Stand::new();
    stand.set("shopd.service", "active");
    let bus = Bus::at(&stand.address);
    let mut unit = bus.unit("shopd").await.expect("followed");
    assert_eq!(unit.active_state().await.expect("read"), "active");
    for state in ["deactivating", "failed", "activating", "active"] {
        let begun = Instant::now();
        stand.change("shopd.service", state).await;
        unit.changed(NEVER).await.expect("told");
        assert_eq!(unit.active_state().await.expect("read"), state);
        // Not a measurement: without the signal it would be a minute.
        assert!(begun.elapsed() < NEVER / 2, "{state}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn one_connection_serves_all_units_and_each_hears_its_own() {
    let stand = Stand::new();
    let bus = Bus::at(&stand.address);
    let mut db = bus.unit("db").await.expect("followed");
    let mut web = bus.unit("web@1.service").await.expect("followed");
    assert_eq!(web.active_state().await.expect("read"), "inactive", "a unit nobody knows is not active");
    assert_eq!(db.active_state().await.expect("read"), "inactive");
    stand.change("web@1.service", "active").await;
    web.changed(NEVER).await.expect("told");
    assert_eq!(web.active_state().await.expect("read"), "active");
    // The signal of the other came before this answer, on the same connection: had it been ours, we would know it.
    assert_eq!(stand.count("Subscribe"), 1);
    let told = tokio::time::timeout(Duration::ZERO, db.changed(NEVER)).await;
    assert!(told.is_err(), "another unit's change is none of this one's");
}

#[tokio::test]
async fn a_bus_that_ends_is_told_and_a_new_one_is_found() {
    let stand = Stand::new();
    stand.set("shopd.service", "active");
    let bus = Bus::at(&stand.address);
    let mut unit = bus.unit("shopd").await.expect("followed");
    for peer in stand.peers() {
        peer.close().await.expect("closed");
    }
    assert!(matches!(unit.changed(NEVER).await, Err(BusError::Ended)));
    assert!(unit.active_state().await.is_err(), "not the last state that was known");
    let mut again = bus.unit("shopd").await.expect("connected anew");
    assert_eq!(again.active_state().await.expect("read"), "active");
    assert_eq!(stand.count("Hello"), 2);
}

#[tokio::test]
async fn without_a_bus_it_says_so() {
    let root = tempfile::tempdir().expect("a directory");
    let bus = Bus::at(format!("unix:path={}", root.path().join("none").display()));
    assert!(matches!(bus.unit("shopd").await, Err(BusError::Connect(_))));
}

#[test]
fn active_is_what_systemctl_calls_active() {
    for (state, active) in
        [("active", true), ("reloading", true), ("activating", false), ("failed", false), ("inactive", false)]
    {
        assert_eq!(is_active(state), active, "{state}");
    }
}
