// The image by its hash, by a URL, and out of a local file that the client itself serves.
import { copyFileSync } from "node:fs";
process.env.CONFORMANCE_COMMONJS = "1";
const { check, main, order } = await import("./common.mjs");

const [, , hash, url] = /^(hash:sha3:([0-9a-f]+)):(.*)$/.exec(process.env.CONFORMANCE_IMAGE);

async function runs(glm, what, image) {
  const wanted = order(undefined, { imageTag: undefined, ...image });
  const rental = await glm.oneOf({ order: wanted });
  const exe = await rental.getExeUnit();
  check(what, String((await exe.run("echo runs")).stdout) === "runs\n");
  await rental.stopAndFinalize();
}

await main(async (glm) => {
  await runs(glm, "an image by its hash", { imageHash: hash });
  await runs(glm, "an image by a URL and its hash", { imageUrl: url, imageHash: hash });
  const file = `${process.cwd()}/local.tar`;
  copyFileSync(process.env.CONFORMANCE_IMAGE_FILE, file);
  await runs(glm, "an image in a local file", { imageUrl: `file://${file}` });
});
