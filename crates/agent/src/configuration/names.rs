//! Asks this machine's resolver what the host names of a configuration stand for: when it is checked or applied,
//! never while it is in force.

use super::{environment, xml};
use model::schema::names::{Answers, NAMES_MAX, choose, wanted};
use model::schema::{cluster_table::CLUSTER, macros, table};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// What all names together may take.
const WITHIN: Duration = Duration::from_secs(5);

/// Host names in a `userconfig.xml`; none of a text that cannot be read.
#[must_use]
pub fn of_module(bytes: &[u8]) -> Vec<String> {
    of(bytes, &table::SAFE)
}

/// Host names in a `cluster.xml`.
#[must_use]
pub fn of_cluster(bytes: &[u8]) -> Vec<String> {
    of(bytes, &CLUSTER)
}

fn of(bytes: &[u8], row: &'static table::ElementRow) -> Vec<String> {
    let Ok(mut root) = xml::read(bytes, "") else { return Vec::new() };
    let _ = macros::expand(&mut root, "", &environment);
    wanted(&root, row)
}

/// What they stand for here and now. `before`: what is in force, kept where it is still right.
pub async fn look_up(names: Vec<String>, before: &BTreeMap<String, IpAddr>) -> Answers {
    let too_many =
        names.iter().skip(NAMES_MAX).map(|name| (name.clone(), Err(format!("is one of more than {NAMES_MAX} names"))));
    let too_many: Vec<_> = too_many.collect();
    let asked = names.into_iter().take(NAMES_MAX).map(|name| async move {
        let before = before.get(&name).copied();
        let answer = match tokio::time::timeout(WITHIN, tokio::net::lookup_host((name.as_str(), 0))).await {
            Err(_) => Err(format!("is not known: the resolver did not answer within {} s", WITHIN.as_secs())),
            Ok(Err(error)) => Err(format!("is not known to this node's resolver: {error}")),
            Ok(Ok(found)) => choose(&found.map(|at| at.ip()).collect::<Vec<_>>(), before),
        };
        (name, answer)
    });
    Answers(futures_util::future::join_all(asked).await.into_iter().chain(too_many).collect())
}
