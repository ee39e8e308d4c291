//! See [`crate::hostile`]: messages of a pairing, and, as if their proof were right, what is in them.

use super::messages::{Conversation, Done, Enter, EnterAnswer, Hello, HelloAnswer, Sealed, Step};
use model::NodeId;

/// A whole message; the first byte says which.
pub fn open(bytes: &[u8]) -> bool {
    let Some((which, json)) = bytes.split_first() else { return false };
    if which & 1 == 0 {
        let sealed = serde_json::from_slice::<Sealed>(json);
        return sealed.is_ok_and(|sealed| !Conversation::default().is_proven(&[0; 32], Step::Hello, &sealed));
    }
    match which >> 1 & 7 {
        0 => serde_json::from_slice::<Hello>(json).is_ok(),
        1 => serde_json::from_slice::<HelloAnswer>(json).is_ok(),
        2 => serde_json::from_slice::<Enter>(json).is_ok_and(|enter| enter.request.len() <= json.len()),
        3 => serde_json::from_slice::<EnterAnswer>(json).is_ok(),
        _ => serde_json::from_slice::<Done>(json).is_ok(),
    }
}

/// One of most of them.
pub fn samples() -> Vec<Vec<u8>> {
    let conversation = Conversation { binding: [1; 32], ca_der: vec![2], server_der: vec![3], nonces: vec![4, 5] };
    let hello = Hello { nonce: "00".into() };
    let sealed = conversation.seal(&[9; 32], Step::Hello, &hello);
    let json = |which: u8, json: serde_json::Result<Vec<u8>>| [vec![which], json.unwrap_or_default()].concat();
    let enter = r#"{"name":"node2","addrs":[["net1","10.0.1.2"],["net2","fd00::2"]],"request":"3082","now_unix_ms":5,"witness":true}"#;
    let answer = r#"{"nonce":"00ff","cluster":5,"node":"node1","lans":[["net1","10.0.1.1"]]}"#;
    vec![
        json(0, serde_json::to_vec(&sealed)),
        json(1, serde_json::to_vec(&hello)),
        [&[3], answer.as_bytes()].concat(),
        [&[5], enter.as_bytes()].concat(),
        json(9, serde_json::to_vec(&Done { node: NodeId(2) })),
    ]
}
