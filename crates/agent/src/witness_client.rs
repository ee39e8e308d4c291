//! Asking the witness: the node's side.
//!
//! **Invariant:** a question is put once; whatever goes wrong on the way is "unreachable", never a guess at the answer.

use crate::transport::{CallError, PeerClient};
use crate::witness_server::{Asked, Pulsed};
use cluster::witness::{Answer, Question, WITNESS_VERSION};
use model::{ModuleName, NodeName};
use std::time::Duration;

/// Puts one question (or pulse) of one module to the witness. `unheard`: for how long the primary that it followed.
pub async fn ask(
    client: &PeerClient,
    witness: &NodeName,
    module: &ModuleName,
    question: &Question,
    unheard: Option<Duration>,
    within: Duration,
) -> Answer {
    let unheard_ms = unheard.map(|unheard| u64::try_from(unheard.as_millis()).unwrap_or(u64::MAX));
    let asked = Asked { version: WITNESS_VERSION, module: module.clone(), question: question.clone(), unheard_ms };
    match client.call::<_, Answer>(witness, "POST", "/v1/witness/ask", Some(&asked), within).await {
        Ok(answer) => answer,
        Err(error) => {
            note(witness, &error);
            Answer::Unreachable
        }
    }
}

/// Puts the pulses of several modules in one request; the answers come in the same order, all
/// [`Answer::Unreachable`] when the witness does not answer.
pub async fn pulse_all(
    client: &PeerClient,
    witness: &NodeName,
    pulses: &[(ModuleName, Question)],
    within: Duration,
) -> Vec<Answer> {
    let asked = |(module, question): &(ModuleName, Question)| Asked {
        version: WITNESS_VERSION,
        module: module.clone(),
        question: question.clone(),
        unheard_ms: None,
    };
    let pulsed = Pulsed { version: WITNESS_VERSION, pulses: pulses.iter().map(asked).collect() };
    match client.call::<_, Vec<Answer>>(witness, "POST", "/v1/witness/pulse", Some(&pulsed), within).await {
        Ok(answers) if answers.len() == pulses.len() => answers,
        Ok(_) => vec![Answer::Unreachable; pulses.len()],
        Err(error) => {
            note(witness, &error);
            vec![Answer::Unreachable; pulses.len()]
        }
    }
}

/// A refusal is worth reading, a witness that is away is said by the module's own story.
fn note(witness: &NodeName, error: &CallError) {
    match error {
        CallError::Refused { problem, .. } => tracing::debug!(%witness, %problem, "the witness refused a question"),
        error => tracing::debug!(%witness, %error, "the witness does not answer"),
    }
}
