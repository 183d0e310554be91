# Values in the form of AWS, where the provider validates them as arguments of another
# resource. All others are random.

mock_data "aws_availability_zones" {
  defaults = { names = ["eu-west-1a", "eu-west-1b", "eu-west-1c"] }
}

mock_data "aws_caller_identity" {
  defaults = { account_id = "123456789012" }
}

mock_data "aws_partition" {
  defaults = { partition = "aws" }
}

mock_data "aws_region" {
  defaults = { region = "eu-west-1" }
}

mock_data "aws_eks_cluster" {
  defaults = { arn = "arn:aws:eks:eu-west-1:123456789012:cluster/production" }
}

mock_data "aws_eks_addon_version" {
  defaults = { version = "v0.8.0-eksbuild.3" }
}

mock_data "aws_lbs" {
  defaults = { arns = [] }
}

mock_resource "aws_eks_cluster" {
  defaults = { arn = "arn:aws:eks:eu-west-1:123456789012:cluster/roster" }
}

mock_resource "aws_kms_key" {
  defaults = { arn = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab" }
}

mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/roster" }
}

mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::123456789012:role/roster" }
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

mock_resource "aws_acm_certificate" {
  defaults = {
    arn = "arn:aws:acm:eu-west-1:123456789012:certificate/1234abcd-12ab-34cd-56ef-1234567890ab"
    domain_validation_options = [{
      domain_name           = "roster.example.com"
      resource_record_name  = "_0123.roster.example.com."
      resource_record_type  = "CNAME"
      resource_record_value = "_4567.acm-validations.aws."
    }]
  }
}
