//! From answers to HTTP: JSON, bytes, or a problem with its status.

use super::backend::{Answer, RawAnswer};
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::api::{Code, Problem};
use serde::Serialize;

/// JSON of a value, or its problem.
pub struct Reply<T>(pub Answer<T>);

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        match self.0 {
            Ok(value) => json(StatusCode::OK, &value),
            Err(problem) => problem_response(&problem),
        }
    }
}

/// A problem as JSON, with its status.
pub(super) fn problem_response(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, problem)
}

/// The bytes of a `.safe`.
pub(super) fn bytes(answer: Answer<Vec<u8>>) -> Response {
    match answer {
        Ok(body) => ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response(),
        Err(problem) => problem_response(&problem),
    }
}

/// What another node said.
pub(super) fn raw(answer: Answer<RawAnswer>) -> Response {
    let answer = match answer {
        Ok(answer) => answer,
        Err(problem) => return problem_response(&problem),
    };
    Response::builder()
        .status(answer.status)
        .header(header::CONTENT_TYPE, answer.content_type)
        .body(Body::from(answer.body))
        .unwrap_or_else(|error| {
            problem_response(&Problem::new(
                Code::Unreachable,
                "the other node's answer makes no sense",
                error.to_string(),
            ))
        })
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        // Only a map with keys that are not strings can fail, and the API has none.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
