// Files both ways, by WebSockets that the client serves; and streamed output.
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

process.env.CONFORMANCE_COMMONJS = "1";
const { check, main, order } = await import("./common.mjs");

const sha256 = (data) => createHash("sha256").update(data).digest("hex");

await main(async (glm) => {
  const directory = mkdtempSync(join(tmpdir(), "gvpn-conformance-"));
  try {
    const content = randomBytes(3_000_017);
    writeFileSync(join(directory, "up"), content);
    const rental = await glm.oneOf({ order: order(undefined) });
    const exe = await rental.getExeUnit();
    await exe.uploadFile(join(directory, "up"), "/tmp/up");
    const result = await exe.run("sha256sum < /tmp/up");
    check("an uploaded file arrived whole", String(result.stdout).includes(sha256(content)));
    await exe.downloadFile("/tmp/up", join(directory, "down"));
    check("and came back", sha256(readFileSync(join(directory, "down"))) === sha256(content));
    await exe.uploadData(new TextEncoder().encode("a few bytes"), "/tmp/bytes");
    const data = await exe.downloadData("/tmp/bytes");
    check("data both ways", new TextDecoder().decode(data.data) === "a few bytes");
    const lines = [];
    const process = await exe.runAndStream("for i in 1 2 3; do echo line $i; sleep 0.3; done");
    process.stdout.subscribe((text) => lines.push(text));
    await process.waitForExit(60_000);
    check("output is streamed", lines.join("").includes("line 3"));
    await rental.stopAndFinalize();
  } finally {
    rmSync(directory, { recursive: true });
  }
});
