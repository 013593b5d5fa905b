// Speaks to a server with OpenAI's JavaScript package and prints what it got, as one JSON object.
//   node openai_client.mjs URL RECORDING PICTURE
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename } from "node:path";

const require = createRequire(process.env.OPENAI_FROM ?? import.meta.url);
const OpenAI = require("openai").default ?? require("openai");
const [url, recording, picture] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const model = "nano";
const messages = [{ role: "user", content: "Who are you?" }];
const parameters = {
  type: "object",
  properties: { room: { type: "string", enum: ["kitchen", "hall"] }, on: { type: "boolean" } },
  required: ["room", "on"],
};
const light = { name: "set_light", description: "Switch a light", parameters };
const command = {
  model,
  messages: [{ role: "user", content: "Turn on the light in the kitchen." }],
  tools: [{ type: "function", function: light }],
  tool_choice: "required",
};

async function gathered(stream) {
  const found = [];
  for await (const one of stream) found.push(one);
  return found;
}

async function chats() {
  const whole = await client.chat.completions.create({ model, messages });
  const asked = { model, messages, stream: true, stream_options: { include_usage: true } };
  const chunks = await gathered(await client.chat.completions.create(asked));
  const seen = await client.chat.completions.create({
    model,
    messages: [{
      role: "user",
      content: [
        { type: "text", text: "What is on the sign?" },
        { type: "image_url", image_url: { url: `data:image/png;base64,${await readFile(picture, "base64")}` } },
      ],
    }],
  });
  return {
    whole: whole.choices[0].message.content,
    streamed: chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join(""),
    usages: [whole.usage.total_tokens, chunks.at(-1).usage.total_tokens],
    seen: seen.choices[0].message.content,
  };
}

async function tools() {
  const answer = (await client.chat.completions.create(command)).choices[0];
  const call = answer.message.tool_calls[0];
  const chunks = await gathered(await client.chat.completions.create({ ...command, stream: true }));
  const pieces = chunks.flatMap((chunk) => chunk.choices[0]?.delta?.tool_calls ?? []).filter((piece) => piece.index === 0);
  const gone = await client.chat.completions.stream(command).finalChatCompletion();
  const result = { role: "tool", tool_call_id: call.id, content: "done" };
  const after = await client.chat.completions.create({ ...command, tool_choice: "none", messages: [...command.messages, answer.message, result] });
  return {
    call: [call.function.name, call.function.arguments, answer.finish_reason],
    streamed: [pieces[0].function.name, pieces.map((piece) => piece.function.arguments).join(""), chunks.at(-1).choices[0].finish_reason],
    pieces: pieces.length,
    helper: [gone.choices[0].message.tool_calls[0].function.name, gone.choices[0].message.tool_calls[0].function.arguments, gone.choices[0].finish_reason],
    after: typeof after.choices[0].message.content,
  };
}

async function responses() {
  const whole = await client.responses.create({ model, input: "Who are you?" });
  const events = await gathered(await client.responses.create({ model, input: "Who are you?", stream: true }));
  const final = await client.responses.stream({ model, input: "Who are you?" }).finalResponse();
  const next = await client.responses.create({ model, input: "And you?", previous_response_id: whole.id });
  const calls = await gathered(await client.responses.create({
    model, input: "Turn on the light in the kitchen.", stream: true,
    tools: [{ type: "function", strict: true, ...light }], tool_choice: "required",
  }));
  const deltas = calls.filter((event) => event.type === "response.function_call_arguments.delta" && event.output_index === 0);
  const done = calls.find((event) => event.type === "response.function_call_arguments.done");
  return {
    whole: whole.output_text,
    streamed: events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta).join(""),
    helper: final.output_text,
    kinds: [events[0].type, events.at(-1).type],
    longer: next.usage.input_tokens > whole.usage.input_tokens,
    deltas: deltas.map((event) => event.delta).join(""),
    done: done.arguments,
    ended: calls.at(-1).response.output[0].arguments,
  };
}

async function recordings() {
  const file = new File([await readFile(recording)], basename(recording), { type: "audio/wav" });
  const heard = await client.audio.transcriptions.create({ model, file });
  const read = await client.audio.transcriptions.create({ model, file: createReadStream(recording), response_format: "verbose_json" });
  const events = await gathered(await client.audio.transcriptions.create({ model, file, stream: true }));
  return {
    file: heard.text,
    read: read.text,
    segments: read.segments.length,
    deltas: events.slice(0, -1).map((event) => event.delta).join(""),
    done: events.at(-1).text,
  };
}

async function refused() {
  try {
    await client.chat.completions.create({ model: "other", messages });
  } catch (error) {
    return [error.constructor.name, error.status, error.code, error.requestID?.startsWith("req_")];
  }
}

// A client that leaves in the middle of an answer, and asks again.
async function left() {
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  for await (const _ of stream) break;
  return (await client.chat.completions.create({ model, messages })).choices[0].message.content;
}

console.log(JSON.stringify({
  chats: await chats(),
  tools: await tools(),
  responses: await responses(),
  recordings: await recordings(),
  refused: await refused(),
  left: await left(),
  models: (await gathered(await client.models.list())).map((entry) => entry.id),
}));
