//! One request and its answer, without the socket: what has come, what is to be sent, until when.

use super::request;
use ashlar_image::control::{Answer, MAX_LINE, Refusal, RefusalKind, Request};
use std::time::Duration;

/// How long a peer may take to send its request, and again to take its answer.
pub const PEER_LIMIT: Duration = Duration::from_secs(10);
/// How long PID 1 may take to answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, or send what there is to send.
    Wait,
    /// The request is complete.
    Request(Request),
    /// The connection is over.
    Close,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Receiving(Vec<u8>),
    /// PID 1 works on it. Whether the peer has said that it sends nothing more.
    Asked {
        ended: bool,
    },
    Sending {
        line: Vec<u8>,
        sent: usize,
    },
}

/// A connection's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    state: State,
    deadline: Duration,
}

impl Exchange {
    /// Somebody came.
    pub const fn new(now: Duration) -> Self {
        Self { state: State::Receiving(Vec::new()), deadline: now.saturating_add(PEER_LIMIT) }
    }

    /// When [`Exchange::expire`] is due.
    pub const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Bytes in memory.
    pub fn buffered(&self) -> usize {
        match &self.state {
            State::Receiving(bytes) => bytes.len(),
            State::Asked { .. } => 0,
            State::Sending { line, .. } => line.len(),
        }
    }

    /// Whether it waits to write or to read; neither where the peer has sent all and PID 1 has not answered.
    pub const fn wants_write(&self) -> Option<bool> {
        match &self.state {
            State::Receiving(_) | State::Asked { ended: false } => Some(false),
            State::Asked { ended: true } => None,
            State::Sending { .. } => Some(true),
        }
    }

    /// Bytes came.
    pub fn received(&mut self, bytes: &[u8], now: Duration) -> Step {
        let State::Receiving(line) = &mut self.state else {
            // One connection carries one request.
            return Step::Close;
        };
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = end.and_then(|end| bytes.get(..end)).unwrap_or(bytes);
        // The end of the line counts.
        if line.len().saturating_add(part.len()) >= MAX_LINE {
            return self.refuse(request::too_long(), now);
        }
        line.extend_from_slice(part);
        let Some(end) = end else { return Step::Wait };
        if end.saturating_add(1) < bytes.len() {
            return self.refuse(request::more_than_one(), now);
        }
        match request::parse_request(line) {
            Ok(request) => {
                self.state = State::Asked { ended: false };
                self.deadline = now.saturating_add(ANSWER_LIMIT);
                Step::Request(request)
            }
            Err(refusal) => self.refuse(refusal, now),
        }
    }

    /// The peer sends nothing more; it may still read.
    pub fn end_of_input(&mut self) -> Step {
        match &mut self.state {
            State::Receiving(_) => Step::Close,
            State::Asked { ended } => {
                *ended = true;
                Step::Wait
            }
            State::Sending { .. } => Step::Wait,
        }
    }

    /// PID 1 answers.
    pub fn answer(&mut self, answer: &Answer, now: Duration) {
        if !matches!(self.state, State::Asked { .. }) {
            return;
        }
        let line = line(answer).unwrap_or_else(|| line(&Answer::Error(unfit())).unwrap_or_default());
        self.send(line, now);
    }

    /// The request is refused before PID 1 sees it.
    pub fn refuse(&mut self, refusal: Refusal, now: Duration) -> Step {
        self.send(line(&Answer::Error(refusal)).unwrap_or_default(), now);
        Step::Wait
    }

    fn send(&mut self, line: Vec<u8>, now: Duration) {
        self.state = State::Sending { line, sent: 0 };
        self.deadline = now.saturating_add(PEER_LIMIT);
    }

    /// What is still to be sent.
    pub fn to_send(&self) -> &[u8] {
        match &self.state {
            State::Sending { line, sent } => line.get(*sent..).unwrap_or_default(),
            _ => &[],
        }
    }

    /// So many bytes were sent.
    pub fn sent(&mut self, length: usize) -> Step {
        let State::Sending { line, sent } = &mut self.state else { return Step::Wait };
        *sent = sent.saturating_add(length);
        if *sent >= line.len() { Step::Close } else { Step::Wait }
    }

    /// The time is `now`.
    pub fn expire(&mut self, now: Duration) -> Step {
        if now < self.deadline {
            return Step::Wait;
        }
        match self.state {
            State::Receiving(_) | State::Sending { .. } => Step::Close,
            State::Asked { .. } => self.refuse(late(), now),
        }
    }
}

/// An answer with its end of the line; none where it is too long.
fn line(answer: &Answer) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(answer).ok()?;
    line.push(b'\n');
    (line.len() <= MAX_LINE).then_some(line)
}

fn unfit() -> Refusal {
    Refusal {
        kind: RefusalKind::Failed,
        message: format!("the answer is longer than {MAX_LINE} bytes"),
        advice: "this is a fault of init; report it with `ashlarctl logs --unit init`".into(),
    }
}

fn late() -> Refusal {
    Refusal {
        kind: RefusalKind::Failed,
        message: format!(
            "init has not answered within {} s; it may still do what was asked",
            ANSWER_LIMIT.as_secs()
        ),
        advice: "look at `ashlarctl status` and `ashlarctl logs --unit init`".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::control::Reply;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn refusal(exchange: &Exchange) -> Refusal {
        match serde_json::from_slice(exchange.to_send()).unwrap() {
            Answer::Error(refusal) => refusal,
            Answer::Ok(reply) => panic!("{reply:?}"),
        }
    }

    #[test]
    fn the_deadline_follows_who_is_waited_for() {
        let mut exchange = Exchange::new(NOW);
        assert_eq!(exchange.deadline(), NOW + PEER_LIMIT);
        // Bytes do not move it.
        assert_eq!(exchange.received(b"{\"op\":", NOW + Duration::from_secs(9)), Step::Wait);
        assert_eq!(exchange.deadline(), NOW + PEER_LIMIT);
        assert_eq!(exchange.expire(NOW + PEER_LIMIT), Step::Close);
        let asked = NOW + Duration::from_secs(5);
        assert_eq!(exchange.received(b"\"status\"}\n", asked), Step::Request(Request::Status));
        assert_eq!(exchange.deadline(), asked + ANSWER_LIMIT);
        let mut forgotten = exchange.clone();
        exchange.answer(&Answer::Ok(Reply::Done), asked);
        assert_eq!(exchange.deadline(), asked + PEER_LIMIT);
        assert_eq!(exchange.to_send(), b"{\"ok\":\"done\"}\n");
        assert_eq!(exchange.sent(3), Step::Wait);
        assert_eq!(exchange.to_send(), b"k\":\"done\"}\n");
        assert_eq!(exchange.expire(asked + PEER_LIMIT), Step::Close);
        assert_eq!(exchange.sent(11), Step::Close);
        // PID 1 has forgotten it: the peer is told, then dropped.
        let late = asked + ANSWER_LIMIT;
        assert_eq!(forgotten.expire(late), Step::Wait);
        assert_eq!(refusal(&forgotten).kind, RefusalKind::Failed);
        assert_eq!(forgotten.expire(late + PEER_LIMIT), Step::Close);
    }

    #[test]
    fn the_longest_line_and_one_byte_more() {
        let body = |length: usize| {
            let mut line = br#"{"op":"configure","dry_run":true,"envelope":""#.to_vec();
            line.resize(length - 3, b'a');
            line.extend_from_slice(b"\"}\n");
            line
        };
        let mut exchange = Exchange::new(NOW);
        assert!(matches!(exchange.received(&body(MAX_LINE), NOW), Step::Request(Request::Configure { .. })));
        let mut exchange = Exchange::new(NOW);
        assert_eq!(exchange.received(&body(MAX_LINE + 1), NOW), Step::Wait);
        assert!(refusal(&exchange).message.contains("4194304 bytes"), "{}", refusal(&exchange).message);
        let mut exchange = Exchange::new(NOW);
        for _ in 0..MAX_LINE / 4096 {
            assert!(exchange.buffered() < MAX_LINE);
            exchange.received(&[b' '; 4096], NOW);
        }
        assert_eq!(exchange.wants_write(), Some(true));
        assert!(exchange.buffered() < 1024);
    }

    #[test]
    fn one_request_a_connection() {
        let mut exchange = Exchange::new(NOW);
        exchange.received(b"{\"op\":\"status\"}\n{\"op\":\"reboot\"}\n", NOW);
        assert!(refusal(&exchange).message.contains("one request"));
        let mut exchange = Exchange::new(NOW);
        exchange.received(b"{\"op\":\"status\"}\n", NOW);
        assert_eq!(exchange.received(b"{", NOW), Step::Close);
        // An end is no second request, and nothing that poll should report for ever.
        assert_eq!(exchange.end_of_input(), Step::Wait);
        assert_eq!(exchange.wants_write(), None);
        exchange.answer(&Answer::Ok(Reply::Done), NOW);
        assert_eq!(exchange.wants_write(), Some(true));
        assert_eq!(Exchange::new(NOW).end_of_input(), Step::Close);
    }

    #[test]
    fn an_answer_that_does_not_fit() {
        let mut exchange = Exchange::new(NOW);
        exchange.received(b"{\"op\":\"measurements\"}\n", NOW);
        let mut long = refusal(&{
            let mut other = Exchange::new(NOW);
            other.received(b"\n", NOW);
            other
        });
        long.message = "x".repeat(MAX_LINE);
        exchange.answer(&Answer::Error(long), NOW);
        assert!(refusal(&exchange).message.contains("longer than"));
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut(cut in proptest::collection::vec(1..9_usize, 0..12)) {
            let line = b"{\"op\":\"service\",\"name\":\"web\",\"action\":\"stop\"}\n";
            let mut exchange = Exchange::new(NOW);
            let mut rest = &line[..];
            for length in cut {
                let (part, after) = rest.split_at(length.min(rest.len() - 1));
                prop_assert_eq!(exchange.received(part, NOW), Step::Wait);
                rest = after;
            }
            let step = exchange.received(rest, NOW);
            prop_assert!(matches!(step, Step::Request(Request::Service { .. })), "{:?}", step);
        }
    }
}
