"""What lies between two endpoints: streams of frames, their clock and their pace.

link          `Link`: one stream or several side by side, and what waits to cross
stream        `Stream`: numbered frames, exactly once, over one connection after another
loopback      `Loopback`, the connection of an endpoint to itself
pace          `LinkPace` of an emulated link
stream_count  `find_streams`, `streams_to_fill`: how many streams a link is worth
"""
