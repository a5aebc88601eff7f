"""HTTP requests as bytes on a socket: for what no client library would send."""

import asyncio


async def raw_post(url, route, body, *, headers=(), pieces=None, length=None, then=b""):
    """POST bytes and read what comes back on the connection: (status, body) of each answer in turn.

    Args:
        url: of the server.
        route: what is asked for.
        body: as it is sent.
        headers: further ones, as (name, value).
        pieces: sizes of the packets in which the body arrives; what is left comes in one.
        length: said to be that of the body; the truth by default, and 0 for chunks.
        then: a second request, sent on the same connection when the first has been answered.
    """
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    size = f"Content-Length: {len(body) if length is None else length}" if length != 0 else "Transfer-Encoding: chunked"
    lines = [f"POST {route} HTTP/1.1", "Host: here", "Content-Type: application/json", size]
    lines += [f"{name}: {value}" for name, value in headers]
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode())
        for piece in cut(body, pieces or ()):
            await writer.drain()
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if length == 0 else piece)
            await asyncio.sleep(0)  # a packet of its own
        if length == 0:
            writer.write(b"0\r\n\r\n")
        answers = [await answer(reader)]
        if then:
            writer.write(then)
            answers.append(await answer(reader))
        return answers
    finally:
        writer.close()


def cut(body, sizes):
    """A body in pieces of these sizes, and the rest of it."""
    for size in (*sizes, len(body)):
        if piece := body[:size]:
            yield piece
        body = body[size:]


async def answer(reader):
    """One answer: its status and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length:"))
    return int(head.split()[1]), await reader.readexactly(length)
