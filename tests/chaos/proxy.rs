//! A proxy that does to connections what networks do: cuts them, holds them up, lets them through drop by drop,
//! or lets one side believe that the other is still there.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time;

/// How long the far side may take to be reached.
const CONNECT: Duration = Duration::from_secs(3);

/// What becomes of bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Clear,
    /// Who comes is thrown out.
    Closed,
    /// Bytes wait: those to the far side, those from there.
    Stalled {
        up: bool,
        down: bool,
    },
    /// So many bytes of a connection in a millisecond, each way.
    Slow(usize),
}

impl Weather {
    /// How many bytes may pass at once; none if they have to wait.
    fn lets_through(self, way: Way) -> Option<usize> {
        match (self, way) {
            (Self::Clear, _) => Some(usize::MAX),
            (Self::Closed, _)
            | (Self::Stalled { up: true, .. }, Way::Up)
            | (Self::Stalled { down: true, .. }, Way::Down) => None,
            (Self::Stalled { .. }, _) => Some(usize::MAX),
            (Self::Slow(bytes), _) => Some(bytes),
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

/// Who hears of it that a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Both,
    /// Who opened it; the far side believes that it is still there.
    Near,
    /// The far side; who opened it believes that it is still there.
    Far,
}

#[derive(Clone, Copy)]
struct State {
    weather: Weather,
    /// Where the far side is, if it is anywhere.
    far: Option<SocketAddr>,
    cuts: u64,
    cut: Cut,
}

/// A way from an address of this machine to wherever the far side is now.
pub(crate) struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
}

impl Link {
    /// Listens on a port of `address` that is free.
    pub(crate) fn open(runtime: &Handle, address: [u8; 4]) -> Self {
        let listener = std::net::TcpListener::bind(SocketAddr::from((address, 0)));
        let listener = listener.expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let (state, seen) = watch::channel(State {
            weather: Weather::Clear,
            far: None,
            cuts: 0,
            cut: Cut::Both,
        });
        let address = listener.local_addr().expect("an address");
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a socket");
            loop {
                match listener.accept().await {
                    Ok((near, _)) => {
                        tokio::spawn(carry(near, seen.clone()));
                    }
                    // No file is left for it.
                    Err(_) => time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        Self { address, state }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections go there, or nowhere.
    pub(crate) fn lead_to(&self, far: Option<SocketAddr>) {
        self.state.send_modify(|state| state.far = far);
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.state.send_modify(|state| state.weather = weather);
    }

    /// Ends all connections.
    pub(crate) fn cut(&self, cut: Cut) {
        self.state.send_modify(|state| {
            state.cuts += 1;
            state.cut = cut;
        });
    }
}

async fn carry(near: TcpStream, mut state: watch::Receiver<State>) {
    let began = *state.borrow_and_update();
    let far = match began.far {
        Some(far) if began.weather != Weather::Closed => {
            time::timeout(CONNECT, TcpStream::connect(far)).await
        }
        _ => return reset(near),
    };
    let Ok(Ok(far)) = far else {
        return reset(near);
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let flows = async {
        tokio::try_join!(
            pump(&near, &far, state.clone(), Way::Up),
            pump(&far, &near, state.clone(), Way::Down)
        )
    };
    let mut cuts = state.clone();
    let cut = tokio::select! {
        flowed = flows => match flowed {
            Ok(_) => return,
            Err(_) => Cut::Both,
        },
        cut = cuts.wait_for(|state| state.cuts != began.cuts) => match cut {
            Ok(state) => state.cut,
            Err(_) => return,
        },
    };
    let forgotten = match cut {
        Cut::Both => {
            reset(near);
            return reset(far);
        }
        Cut::Near => {
            reset(near);
            far
        }
        Cut::Far => {
            reset(far);
            near
        }
    };
    // Whatever it says, nobody hears.
    let mut bytes = [0; 1024];
    while forgotten.readable().await.is_ok() {
        match forgotten.try_read(&mut bytes) {
            Ok(0) => return,
            Err(error) if error.kind() != ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

/// Passes bytes on until there will be no more, or the connection breaks.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    mut state: watch::Receiver<State>,
    way: Way,
) -> io::Result<()> {
    let over = |_| io::Error::from(ErrorKind::ConnectionAborted);
    let mut bytes = [0; 4096];
    loop {
        let allowed = state.wait_for(|state| state.weather.lets_through(way).is_some());
        let weather = allowed.await.map_err(over)?.weather;
        from.readable().await?;
        if state.borrow().weather != weather {
            continue;
        }
        let most = weather.lets_through(way).unwrap_or(1).min(bytes.len());
        let count = match from.try_read(&mut bytes[..most]) {
            Ok(0) => return SockRef::from(to).shutdown(Shutdown::Write),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        write(to, &bytes[..count]).await?;
        if most < bytes.len() {
            time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub(crate) async fn write(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends a connection without a goodbye.
pub(crate) fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}
