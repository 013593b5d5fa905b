// Speaks to a server with OpenAI's JavaScript package and prints what it got, as one JSON object.
//   node openai_client.mjs URL RECORDING
import { createReadStream } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.OPENAI_FROM ?? import.meta.url);
const OpenAI = require("openai").default ?? require("openai");
const [url, recording] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Who are you?" }];

const whole = await client.chat.completions.create({ model: "nano", messages });
let streamed = "";
for await (const chunk of await client.chat.completions.create({ model: "nano", messages, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
const response = await client.responses.create({ model: "nano", input: "Who are you?" });
let kinds = [];
for await (const event of await client.responses.create({ model: "nano", input: "Who are you?", stream: true })) {
  kinds.push(event.type);
}
const heard = await client.audio.transcriptions.create({ model: "nano", file: createReadStream(recording) });
let refused = "";
try {
  await client.chat.completions.create({ model: "other", messages });
} catch (error) {
  refused = `${error.status} ${error.code}`;
}
const models = (await client.models.list()).data.map((model) => model.id);
console.log(JSON.stringify({
  whole: whole.choices[0].message.content, streamed, response: response.output_text, kinds, heard: heard.text, refused, models,
}));
