//! What a person has to confirm: the API says what would be lost, this asks, and asks the API again (G7).

use std::io::{IsTerminal, Write};

use clap::Args;
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;

use crate::{client::Api, failure::Failure};

/// How a command that may lose something is asked for.
#[derive(Debug, Default, Args)]
pub(crate) struct Consent {
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Whether the answer to `question` is yes.
    pub(crate) fn given(&self, question: &str) -> Result<bool, Failure> {
        if self.yes {
            return Ok(true);
        }
        if !std::io::stdin().is_terminal() {
            return Err(Failure::Usage(format!("{question}. Say --yes if that is wanted")));
        }
        let mut terminal = std::io::stderr();
        write!(terminal, "{question}. Go on? [y/N] ")?;
        terminal.flush()?;
        let mut answer = String::new();
        std::io::stdin()
            .read_line(&mut answer)
            .map_err(Failure::while_doing("can't read the answer"))?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Sends something; if it would lose something, asks first. None if that was not wanted.
    pub(crate) async fn send<B: Serialize + Sync + ?Sized>(
        &self,
        api: &Api,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Option<Value>, Failure> {
        let mut token = None;
        loop {
            match api
                .send_confirmed(method.clone(), path, body, token.as_deref())
                .await
            {
                Err(Failure::Refused(problem)) if problem.confirmation.is_some() => {
                    if !self.given(problem.detail.trim_end_matches('.'))? {
                        return Ok(None);
                    }
                    // The situation may have changed meanwhile: then the next answer says so, and it asks anew.
                    token = problem.confirmation;
                }
                answer => return answer.map(Some),
            }
        }
    }
}
