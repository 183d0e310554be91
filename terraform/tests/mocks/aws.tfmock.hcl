# What the modules tell each other, in the form that AWS gives it.

mock_data "aws_availability_zones" {
  defaults = { names = ["eu-west-1a", "eu-west-1b", "eu-west-1c"] }
}

mock_data "aws_caller_identity" {
  defaults = { account_id = "123456789012" }
}

mock_data "aws_partition" {
  defaults = { partition = "aws" }
}

mock_data "aws_eks_cluster" {
  defaults = { arn = "arn:aws:eks:eu-west-1:123456789012:cluster/production" }
}

mock_resource "aws_eks_cluster" {
  defaults = {
    arn                   = "arn:aws:eks:eu-west-1:123456789012:cluster/roster"
    certificate_authority = [{ data = "Y2VydGlmaWNhdGU=" }]
  }
}

mock_resource "aws_dynamodb_table" {
  defaults = { arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/roster-users" }
}

mock_resource "aws_s3_bucket" {
  defaults = { id = "roster-avatars-0123", arn = "arn:aws:s3:::roster-avatars-0123" }
}

mock_resource "aws_ecr_repository" {
  defaults = { repository_url = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/roster" }
}

mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::123456789012:role/roster-pods" }
}
