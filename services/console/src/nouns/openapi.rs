//! `openapi.json`: this API, described after OpenAPI 3.1.

use warp::{
    http::{HeaderValue, header},
    reply::Response,
};

use crate::answer::Outcome;

const DOCUMENT: &str = include_str!("../../openapi.json");

pub(super) fn document() -> Outcome {
    let mut response = Response::new(DOCUMENT.into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
mod tests;
