// A local port forwarded to a port of a payload.
import net from "node:net";
import { check, main, order } from "./common.mjs";

const PORT = Number(process.env.CONFORMANCE_PORT);

async function fetchText(path) {
  const response = await fetch(`http://127.0.0.1:${PORT}${path}`);
  return { status: response.status, text: await response.text() };
}

await main(async (glm) => {
  const network = await glm.createNetwork({ id: "proxied", ip: "10.11.0.0/24" });
  const rental = await glm.oneOf({ order: order(network) });
  const exe = await rental.getExeUnit();
  await exe.run("mkdir -p /tmp/www && echo through the gate > /tmp/www/index.html");
  await exe.run("head -c 4000000 /dev/urandom > /tmp/www/large");
  await exe.run("busybox httpd -p 8080 -h /tmp/www");
  const sum = String((await exe.run("wc -c < /tmp/www/large")).stdout).trim();
  const proxy = exe.createTcpProxy(8080);
  await proxy.listen(PORT);
  for (let i = 0; i < 10; i++) {
    const { status, text } = await fetchText("/index.html");
    if (status !== 200 || !text.includes("through the gate")) throw new Error(`${status} ${text}`);
  }
  check("ten requests through the proxy", true);
  const large = await (await fetch(`http://127.0.0.1:${PORT}/large`)).arrayBuffer();
  check("a large answer arrives whole", large.byteLength === Number(sum));
  await new Promise((resolve) => {
    const socket = net.connect(PORT, "127.0.0.1", () => socket.destroy());
    socket.on("close", resolve);
  });
  await proxy.close();
  await rental.stopAndFinalize();
  await glm.destroyNetwork(network);
  check("everything is torn down", true);
});
