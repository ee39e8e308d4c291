//! What a joining machine and a node say to each other, and how each proves that it knows the token.
//!
//! Three exchanges on one TLS connection: *hello* (the machine proves the token, the node proves it back and names the
//! networks), *enter* (name, addresses and certificate request against the whole identity), *done* (it is on disk).
//! **Invariant:** every message carries a proof over its exact bytes, its place in the conversation, both nonces, the
//! TLS channel and both certificates: it means nothing in any other conversation.

use crate::cluster_config::Applied;
use crate::identity::{from_hex, to_hex};
use model::{ClusterId, NodeId, NodeName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Version of the conversation.
pub(super) const JOIN_VERSION: u32 = 1;

/// A message and the proof that its author knows the token.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Sealed {
    pub version: u32,
    /// Says which token; on the first message only.
    #[serde(default)]
    pub token_id: String,
    /// JSON, as text: the proof is over these bytes.
    pub payload: String,
    /// Keyed BLAKE3, hexadecimal.
    pub proof: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    pub nonce: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct HelloAnswer {
    pub nonce: String,
    pub cluster: ClusterId,
    pub node: NodeName,
    /// The node's address on each network.
    pub lans: Vec<(String, IpAddr)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Enter {
    pub name: NodeName,
    pub addrs: Vec<(String, IpAddr)>,
    #[serde(default)]
    pub witness: bool,
    #[serde(default)]
    pub replace: bool,
    /// Certificate request, DER in hexadecimal.
    pub request: String,
    /// The machine's clock, to tell how far the two are apart.
    pub now_unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct EnterAnswer {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub certificate_pem: String,
    pub ca_pem: String,
    /// Nodes only.
    #[serde(default)]
    pub ca_key_pem: Option<String>,
    /// Nodes only, hexadecimal.
    #[serde(default)]
    pub secret: Option<String>,
    pub applied: Applied,
    pub now_unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Done {
    pub node: NodeId,
}

/// The place of a message in the conversation.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Hello,
    HelloAnswer,
    Enter,
    EnterAnswer,
    Done,
    DoneAnswer,
}

impl Step {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Hello => b"hello",
            Self::HelloAnswer => b"hello answer",
            Self::Enter => b"enter",
            Self::EnterAnswer => b"enter answer",
            Self::Done => b"done",
            Self::DoneAnswer => b"done answer",
        }
    }
}

/// What both sides know of their conversation.
#[derive(Clone, Default)]
pub(super) struct Conversation {
    /// From the TLS channel.
    pub binding: [u8; 32],
    pub ca_der: Vec<u8>,
    pub server_der: Vec<u8>,
    /// Empty until the hello is answered.
    pub nonces: Vec<u8>,
}

impl Conversation {
    fn proof(&self, key: &[u8; 32], step: Step, payload: &str) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(key);
        let fields: [&[u8]; 6] =
            [step.label(), &self.binding, &self.ca_der, &self.server_der, &self.nonces, payload.as_bytes()];
        hasher.update(b"stead join").update(&JOIN_VERSION.to_le_bytes());
        for field in fields {
            hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
        }
        hasher.finalize()
    }

    pub fn seal<T: Serialize>(&self, key: &[u8; 32], step: Step, payload: &T) -> Sealed {
        let payload = serde_json::to_string(payload).expect("plain data becomes JSON");
        let proof = to_hex(self.proof(key, step, &payload).as_bytes());
        Sealed { version: JOIN_VERSION, token_id: String::new(), payload, proof }
    }

    /// Is the proof right? (Compared in constant time.)
    pub fn is_proven(&self, key: &[u8; 32], step: Step, sealed: &Sealed) -> bool {
        from_hex::<32>(&sealed.proof)
            .is_some_and(|proof| self.proof(key, step, &sealed.payload) == blake3::Hash::from(proof))
    }

    /// The message, if it is proven and readable.
    pub fn open<T: DeserializeOwned>(&self, key: &[u8; 32], step: Step, sealed: &Sealed) -> Option<T> {
        self.is_proven(key, step, sealed).then(|| serde_json::from_str(&sealed.payload).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Conversation {
        Conversation { binding: [1; 32], ca_der: vec![2], server_der: vec![3], nonces: vec![4, 5] }
    }

    /// What version 1 says, byte for byte, with the proof it makes: a change that breaks this breaks N−1.
    #[test]
    fn messages_of_version_one_are_understood() {
        const HELLO: &str = r#"{"version":1,"token_id":"0011","payload":"{\"nonce\":\"00\"}","proof":"8c68ed62cd104d615a26912ea88cf3856dc62612b0c6b9d8f8e16991c13072ff"}"#;
        let key = [9; 32];
        let sealed: Sealed = serde_json::from_str(HELLO).expect("version 1");
        let made = conversation().seal(&key, Step::Hello, &Hello { nonce: "00".into() });
        assert_eq!((made.payload.as_str(), made.proof.as_str()), (sealed.payload.as_str(), sealed.proof.as_str()));
        let enter = r#"{"name":"node2","addrs":[["net1","10.0.1.2"]],"request":"00","now_unix_ms":5}"#;
        let enter: Enter = serde_json::from_str(enter).expect("version 1, without what came later");
        assert!(!enter.witness && !enter.replace);
    }

    #[test]
    fn a_message_means_nothing_in_any_other_conversation_or_place() {
        let key = [9; 32];
        let sealed = conversation().seal(&key, Step::Hello, &Hello { nonce: "00".into() });
        assert!(conversation().is_proven(&key, Step::Hello, &sealed));
        assert!(!conversation().is_proven(&[8; 32], Step::Hello, &sealed), "another token");
        assert!(!conversation().is_proven(&key, Step::HelloAnswer, &sealed), "sent back as an answer");
        let others = [
            Conversation { binding: [7; 32], ..conversation() }, // replayed, or passed on by somebody between
            Conversation { ca_der: vec![7], ..conversation() },
            Conversation { server_der: vec![7], ..conversation() },
            Conversation { nonces: vec![4, 6], ..conversation() },
            Conversation { ca_der: vec![2, 3], server_der: vec![], ..conversation() }, // same bytes, other fields
        ];
        for other in others {
            assert!(!other.is_proven(&key, Step::Hello, &sealed));
        }
        let mut altered = sealed.clone();
        altered.payload.push(' ');
        assert!(conversation().open::<Hello>(&key, Step::Hello, &altered).is_none());
        altered = sealed;
        altered.proof.truncate(10);
        assert!(conversation().open::<Hello>(&key, Step::Hello, &altered).is_none());
    }
}
