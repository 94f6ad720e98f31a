"""The daemon is started anew while a program uses it."""

import asyncio

from conftest import TAG
from test_rental import connect, nothing_left


def test_a_program_lives_through_a_restart_of_the_daemon(world, run):
    async def program():
        async with connect(world) as vpn, vpn.network("192.168.31.0/24") as net:
            async with vpn.rent(TAG, net) as one, vpn.rent(TAG, net) as two:
                slow = asyncio.ensure_future(one.run("sleep 3; echo done"))
                await asyncio.sleep(1)
                await asyncio.to_thread(world.misfortune, ["restart", "requestor"])
                assert (await slow).stdout == "done\n"
                await one.run(f"ping -c 1 -W 10 {two.ip}")

    run(program())
    nothing_left(world)
