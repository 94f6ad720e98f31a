//! Which thread reads a port.
//!
//! The kernel spreads what peers send over the threads' sockets by addresses, so what a port gets
//! comes by a thread that nobody chose. While little passes, that thread should be the one that reads
//! the port too: it has just been running, and looks for the answer before it sleeps, where another
//! would have to be woken, which takes longer than all that is done with a packet. While much passes,
//! another one should: then sending and receiving go on at once. A port moves between two turns of the
//! thread that reads it, so packets keep their order.

/// More packets than this in a millisecond are much.
const FEW: u64 = 8;
/// How long it must go on, or not, before a port moves.
const WHILE_MS: u64 = 100;

/// What the thread that reads a port knows of its traffic. Times are milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Home {
    millisecond: u64,
    packets: u64,
    /// Much passes since then, with pauses shorter than [`WHILE_MS`].
    busy_since: Option<u64>,
    busy_at: u64,
    moved_at: u64,
}

/// The threads that matter to a port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Threads {
    /// It reads the port.
    pub(crate) reader: usize,
    /// What the port got last came by it.
    pub(crate) feeder: usize,
    /// How many there are.
    pub(crate) count: usize,
}

impl Home {
    /// Takes note of packets of the port, and returns the thread that should read it from now on, if
    /// it is another one. Ports with different `id`s keep away from a thread in different directions.
    pub(crate) fn next(
        &mut self,
        id: u64,
        now: u64,
        packets: u64,
        threads: Threads,
    ) -> Option<usize> {
        self.note(now, packets);
        let Threads { reader, feeder, count } = threads;
        if count < 2 || now < self.moved_at + WHILE_MS {
            return None;
        }
        let to = match self.busy_since {
            None => feeder,
            Some(since) if now >= since + WHILE_MS && reader == feeder => {
                (feeder + 1 + id as usize % (count - 1)) % count
            }
            Some(_) => reader,
        };
        (to != reader).then(|| {
            self.moved_at = now;
            to
        })
    }

    fn note(&mut self, now: u64, packets: u64) {
        if now != self.millisecond {
            (self.millisecond, self.packets) = (now, 0);
        }
        self.packets += packets;
        if now >= self.busy_at + WHILE_MS {
            self.busy_since = None;
        }
        if self.packets > FEW {
            self.busy_since.get_or_insert(now);
            self.busy_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1000;
    const NEVER: [usize; 0] = [];

    /// The threads that read a port in turn while it sends so many packets each so many
    /// milliseconds, for a second.
    fn moves(home: &mut Home, from: u64, every: u64, packets: u64, mut at: Threads) -> Vec<usize> {
        let steps = (from..from + 1000).step_by(every as usize);
        let moved = steps.filter_map(|now| {
            let to = home.next(7, now, packets, at)?;
            at.reader = to;
            Some(to)
        });
        moved.collect()
    }

    #[test]
    fn a_quiet_port_is_read_by_the_thread_that_feeds_it() {
        let apart = Threads { reader: 1, feeder: 0, count: 4 };
        assert_eq!(moves(&mut Home::default(), START, 10, 1, apart), [0]);
        assert_eq!(
            moves(&mut Home::default(), START, 10, 1, Threads { reader: 0, ..apart }),
            NEVER
        );
        assert_eq!(moves(&mut Home::default(), START, 1, FEW, apart), [0]);
    }

    #[test]
    fn a_busy_port_is_read_by_another_one_until_it_is_quiet_again() {
        let mut home = Home::default();
        let together = Threads { reader: 1, feeder: 1, count: 2 };
        assert_eq!(moves(&mut home, START, 1, 44, together), [0]);
        let apart = Threads { reader: 0, ..together };
        assert_eq!(moves(&mut home, START + 1000, 1, 44, apart), NEVER, "once");
        assert_eq!(moves(&mut home, START + 2000, 50, 44, apart), NEVER, "pauses are too short");
        assert_eq!(moves(&mut home, START + 3000, 10, 1, apart), [1]);
    }

    #[test]
    fn a_burst_moves_nothing_and_neither_does_a_single_thread() {
        let mut home = Home::default();
        let together = Threads { reader: 1, feeder: 1, count: 2 };
        assert_eq!(moves(&mut home, START, 200, 1000, together), NEVER);
        let alone = Threads { reader: 0, feeder: 0, count: 1 };
        assert_eq!(moves(&mut home, START + 1000, 1, 44, alone), NEVER);
    }

    #[test]
    fn a_port_that_two_threads_feed_moves_at_most_ten_times_a_second() {
        let mut home = Home::default();
        let mut threads = Threads { reader: 0, feeder: 0, count: 2 };
        let mut moved = 0;
        for now in START..START + 1000 {
            threads.feeder = now as usize % 2;
            if let Some(to) = home.next(7, now, 1, threads) {
                threads.reader = to;
                moved += 1;
            }
        }
        assert!(moved <= 10, "{moved}");
    }

    #[test]
    fn ports_keep_away_in_different_directions() {
        let away = |id| {
            let mut home = Home::default();
            let threads = Threads { reader: 2, feeder: 2, count: 4 };
            (START..START + 1000).find_map(|now| home.next(id, now, 44, threads)).unwrap()
        };
        let mut to: Vec<_> = (0..3).map(away).collect();
        to.sort_unstable();
        assert_eq!(to, [0, 1, 3]);
    }
}
