DROP TABLE nouns;
