//! Units of the service manager, watched over D-Bus: a change of a unit is an event, not the find of the next look.
//!
//! A signal only says "look again": the state is always read from the service manager, so that a signal that is lost,
//! comes twice or is forged misleads nobody.
//! **Invariant:** one connection per process; every call has a deadline; a stream nobody reads blocks no other one.

use futures_util::StreamExt;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant};

const NAME: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// The bus and the service manager may take this long for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// What ends the name of a unit; a name without one is a service.
const KINDS: [&str; 11] =
    ["service", "socket", "target", "timer", "mount", "automount", "swap", "path", "slice", "scope", "device"];

/// The service manager cannot be asked over D-Bus: the state of its units is not known, and asking again is safe.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No bus, or it turned this process away.
    #[error("no connection to the system's D-Bus")]
    Connect(#[source] zbus::Error),
    /// The service manager refused, or nobody has its name on the bus.
    #[error("{call} of {NAME} for {unit} failed")]
    Call {
        /// The method.
        call: &'static str,
        /// The unit.
        unit: String,
        /// Why.
        source: zbus::Error,
    },
    /// It hangs.
    #[error("no answer over D-Bus within {} s", ANSWER.as_secs())]
    Late,
    /// The connection ended.
    #[error("the connection to D-Bus ended")]
    Ended,
}

/// Where the service manager is reached.
pub struct Bus {
    /// Another bus than the system's.
    address: Option<String>,
    held: Mutex<Option<Connection>>,
}

impl Bus {
    /// The system's (`DBUS_SYSTEM_BUS_ADDRESS`, or where it usually is). Connects when it is first used.
    #[must_use]
    pub const fn system() -> Self {
        Self { address: None, held: Mutex::const_new(None) }
    }

    /// One that listens there: `unix:path=…`.
    #[must_use]
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: Some(address.into()), held: Mutex::const_new(None) }
    }

    /// Follows a unit; a name without a kind is a service: `nginx`, `backup.timer`. A unit that does not exist is one
    /// that is not active.
    ///
    /// # Errors
    /// [`BusError`]
    pub async fn unit(&self, name: &str) -> Result<Unit, BusError> {
        let name = full_name(name);
        let connection = self.connection().await?;
        let failed = |call| {
            let unit = name.clone();
            move |source| BusError::Call { call, unit, source }
        };
        let asked = name.as_str();
        let call = connection.call_method(Some(NAME), MANAGER_PATH, Some(MANAGER), "LoadUnit", &asked);
        let answer = within(call).await?.map_err(failed("LoadUnit"))?;
        let path: OwnedObjectPath = answer.body().deserialize().map_err(failed("LoadUnit"))?;
        let rule = changes_of(&path).map_err(failed("AddMatch"))?;
        let stream = within(MessageStream::for_match_rule(rule, &connection, None)).await?;
        let mut stream = stream.map_err(failed("AddMatch"))?;
        let (tell, told) = watch::channel(());
        let reader = tokio::spawn(async move {
            while let Some(Ok(_)) = stream.next().await {
                tell.send_replace(());
            }
        });
        Ok(Unit { name, path, connection, told, reader })
    }

    async fn connection(&self) -> Result<Connection, BusError> {
        let mut held = self.held.lock().await;
        if let Some(connection) = held.as_ref().filter(|it| !it.is_closed()) {
            return Ok(connection.clone());
        }
        let builder = match &self.address {
            Some(address) => zbus::connection::Builder::address(address.as_str()),
            None => zbus::connection::Builder::system(),
        };
        let connection = within(builder.build()).await?.map_err(BusError::Connect)?;
        // Without a subscriber the service manager sends no signals. That this process has subscribed already is well.
        let call = connection.call_method(Some(NAME), MANAGER_PATH, Some(MANAGER), "Subscribe", &());
        match within(call).await? {
            Ok(_) => {}
            Err(zbus::Error::MethodError(name, ..)) if name.ends_with(".AlreadySubscribed") => {}
            Err(source) => return Err(BusError::Call { call: "Subscribe", unit: "all units".into(), source }),
        }
        *held = Some(connection.clone());
        Ok(connection)
    }
}

/// One unit, followed until this is dropped.
pub struct Unit {
    name: String,
    path: OwnedObjectPath,
    connection: Connection,
    told: watch::Receiver<()>,
    reader: JoinHandle<()>,
}

impl Unit {
    /// Its `ActiveState` now: `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`, …
    ///
    /// # Errors
    /// [`BusError`]
    pub async fn active_state(&mut self) -> Result<String, BusError> {
        // What is told from here on is told of what comes after the answer.
        self.told.mark_unchanged();
        let failed = |source| BusError::Call { call: "Get ActiveState", unit: self.name.clone(), source };
        let asked = (UNIT, "ActiveState");
        let call = self.connection.call_method(Some(NAME), &self.path, Some(PROPERTIES), "Get", &asked);
        let answer: Message = within(call).await?.map_err(failed)?;
        let value: OwnedVariant = answer.body().deserialize().map_err(failed)?;
        String::try_from(value).map_err(failed)
    }

    /// Returns when the unit changed since it was last read, or when it is time to read it anyway.
    ///
    /// # Errors
    /// [`BusError::Ended`]: follow it anew.
    pub async fn changed(&mut self, at_most: Duration) -> Result<(), BusError> {
        match timeout(at_most, self.told.changed()).await {
            Ok(Err(_)) => Err(BusError::Ended),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Does a service in this state serve? As `systemctl is-active` has it.
#[must_use]
pub fn is_active(state: &str) -> bool {
    matches!(state, "active" | "reloading" | "refreshing")
}

fn full_name(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((_, kind)) if KINDS.contains(&kind) => name.into(),
        _ => format!("{name}.service"),
    }
}

fn changes_of(path: &OwnedObjectPath) -> Result<MatchRule<'static>, zbus::Error> {
    let rule = MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender(NAME)
        .path(path.clone())
        .interface(PROPERTIES)
        .member("PropertiesChanged")
        .arg(0, UNIT);
    Ok(rule.build()?.to_owned())
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, BusError> {
    timeout(ANSWER, work).await.map_err(|_| BusError::Late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_kind_is_a_service() {
        for (name, full) in [
            ("nginx", "nginx.service"),
            ("postgresql@15-main", "postgresql@15-main.service"),
            ("app.v2", "app.v2.service"),
            ("backup.timer", "backup.timer"),
        ] {
            assert_eq!(full_name(name), full);
        }
    }
}
